"""The commands that use a model: sample and evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

import tract_ray as tr
from tract_ray.cli.arguments import (
    LABELLED,
    SCORED,
    Checkpoint,
    DataRoot,
    Device,
    Features,
    Sampler,
    SamplerSetting,
    Steps,
    Storage,
    Threads,
    settings,
)
from tract_ray.config import require
from tract_ray.files import require_file_place

app = typer.Typer()


@app.command()
def sample(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("samples.png"),
    count: Annotated[int, typer.Option(help="Number of images.")] = 64,
    steps: Steps = None,
    sampler: Sampler = None,
    sampler_settings: SamplerSetting = None,
    label: Annotated[int | None, typer.Option(help="Class of a conditional model; default: all in turn.")] = None,
    columns: Annotated[int, typer.Option(help="Images in a row.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    device: Device = None,
    threads: Threads = 0,
) -> None:
    """Write a PNG grid of samples."""
    require_file_place(out, "out")
    known = Image.registered_extensions().get(out.suffix.lower()) in Image.SAVE
    require(known, "out", f"{out.name} has no ending of a picture's (example: samples.png)")
    model = tr.load_model(checkpoint, device=device, threads=threads)
    own = settings(sampler_settings, "sampler-set") or None
    how = model.network.resampled(steps, sampler, own).described_steps()
    picture = model.grid(
        count, columns=columns, steps=steps, sampler=sampler, sampler_settings=own, labels=label, seed=seed
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out)
    print(f"{out}: {count} images, {how} each")


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    steps: Steps = None,
    sampler: Sampler = None,
    sampler_settings: SamplerSetting = None,
    samples: Annotated[int | None, typer.Option(help=f"Number of images; default: {SCORED}.")] = None,
    features: Features = "",
    labels: Annotated[str | None, typer.Option(help=f"Of a conditional model: {LABELLED}.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data to compare with; default: what it was trained on.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    storage: Storage = None,
    data_root: DataRoot = None,
    device: Device = None,
    threads: Threads = 0,
) -> None:
    """Score a model; the result is JSON."""
    score = tr.evaluate(
        checkpoint,
        steps=steps,
        sampler=sampler,
        sampler_settings=settings(sampler_settings, "sampler-set") or None,
        samples=samples,
        features=features,
        labels=labels,
        dataset=dataset,
        seed=seed,
        storage=storage,
        data_root=data_root,
        device=device,
        threads=threads,
    )
    print(json.dumps(score, indent=2))
