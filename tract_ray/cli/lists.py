"""The commands that say what there is: networks and methods."""

from __future__ import annotations

import json
from typing import Annotated, Any

import torch
import typer

from tract_ray.config import InputError
from tract_ray.distillation import methods
from tract_ray.networks import build_network, count_parameters, presets
from tract_ray.terminal import make_console, print_table
from tract_ray.training.recipes import find_recipe, recipes

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else to standard output.")]


@app.command()
def networks(as_json: AsJson = False) -> None:
    """List the network presets with their parameters."""
    rows = []
    for name, preset in presets.items():
        try:
            with torch.device("meta"):
                network = build_network(
                    name, num_classes=preset.num_classes, out_multiplier=2 if preset.prediction == "both" else 1
                )
        except InputError:  # a preset of a library that is not installed
            continue
        rows.append(
            {
                "name": name,
                "parameters": count_parameters(network),
                "shape": list(preset.shape),
                "prediction": preset.prediction,
                "classes": preset.num_classes,
                "note": preset.note,
            }
        )
    show_rows("networks", rows, as_json)


@app.command(name="methods")
def list_methods(as_json: AsJson = False) -> None:
    """List the training methods and their papers."""
    rows = [
        {"name": name, "paper": method.paper, "what": (method.__doc__ or "").strip().splitlines()[0]}
        for name, method in methods.items()
    ]
    show_rows("methods", rows, as_json)


@app.command(name="recipes")
def list_recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one whole, as the JSON that --recipe reads.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the recipes: the papers' settings and distances, and our own."""
    if name:
        print(find_recipe(name).to_json(), end="")
        return
    rows = [
        {
            "name": r.name,
            "method": r.method.kind,
            "images": r.method.samples,
            "batch": r.method.batch,
            "updates": r.method.steps,
            "published": r.published or "-",
            "measured with": r.measured_with or "-",
            **(
                {"extractor": r.evaluation.features, "what": r.what, "sources": r.sources, "notes": list(r.notes)}
                if as_json
                else {}
            ),
        }
        for r in recipes.values()
    ]
    show_rows("recipes", rows, as_json)


def show_rows(title: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    """Rows as JSON, or as a table: of lines to grep where nobody watches."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    shown = [{k: "x".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
    console = make_console()
    if not console.is_terminal:
        console.width = 200  # a line a row: for grep
    print_table(console, title, shown, right=("parameters", "images", "classes", "batch", "updates"))
