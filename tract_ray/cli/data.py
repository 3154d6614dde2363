"""The command that says what data there is, and what is in a folder: datasets."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from tract_ray.cli.arguments import AsJson, DataRoot, SkipDamaged
from tract_ray.cli.lists import show_rows
from tract_ray.data import datasets, load_dataset
from tract_ray.data.decoded import about_pictures
from tract_ray.data.on_disk import FOLDER_PREFIX, Pictures, scan, with_options
from tract_ray.data.source import Source

app = typer.Typer()

SIZES = (256, 128, 64, 32, 16, 8)


@app.command(name="datasets")
def list_datasets(
    data: Annotated[
        str | None, typer.Argument(help="A folder or archive, PATH or PATH@SIZE, or a name, to look into.")
    ] = None,
    skip_damaged: SkipDamaged = False,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """List the data sets, or say what one of them holds: images, classes, sizes, what is skipped and why."""
    if data is None:
        show_rows("data sets", _known(), as_json)
        return
    found = _look(data, skip_damaged, data_root)
    print(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))


def _known() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "name": i.name,
            "shape": list(i.shape),
            "images": i.size,
            "classes": i.num_classes,
            "network": i.network,
            "note": i.note,
        }
        for i in datasets.values()
    ]
    note = "image files, or a zip in EDM's layout"
    shape = [3, "SIZE", "SIZE"]
    return [*rows, {"name": "folder:PATH@SIZE", "shape": shape, "images": 0, "classes": 0, "network": "", "note": note}]


def _look(data: str, skip_damaged: bool, data_root: str | None) -> dict[str, Any]:
    bare = data.removeprefix(FOLDER_PREFIX)
    if data not in datasets and Path(bare).expanduser().exists():
        return _headers(Path(bare).expanduser())
    name = FOLDER_PREFIX + bare if data not in datasets and "@" in bare else data
    loaded = load_dataset(with_options(name, skip_damaged), data_root)
    about: dict[str, Any] = {"sizes": {f"{loaded.shape[2]}x{loaded.shape[1]}": len(loaded)}, "skipped": {}}
    if loaded.name.startswith(FOLDER_PREFIX):
        read = Pictures.parse(loaded.name)
        source = read.source()
        seen = about_pictures(source, read.size, background=read.background, skip_damaged=read.skip_damaged)
        files = _names(source) | dict.fromkeys(seen.damaged, "damaged")
        about = {"sizes": seen.sizes, "skipped": seen.skipped, "files_skipped": files}
    return {
        "name": loaded.name,
        "images": len(loaded),
        "classes": loaded.num_classes,
        "shape": list(loaded.shape),
        "fingerprint": loaded.fingerprint,
        **about,
    }


def _headers(path: Path) -> dict[str, Any]:
    """What a look at the pictures' headers shows, without decoding them to a size."""
    source = scan(path)
    sizes, damaged = Counter[str](), list[str]()
    smallest = max(SIZES)
    for i, name in enumerate(source.names):
        try:
            with Image.open(source.read(i)) as image:
                sizes[f"{image.width}x{image.height}"] += 1
                smallest = min(smallest, *image.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            damaged.append(name)
    size = next((s for s in SIZES if s <= smallest), SIZES[-1])
    skipped = Counter(reason for _, reason in source.skipped) + Counter(damaged=len(damaged))
    return {
        "name": f"{FOLDER_PREFIX}{path}@{size}",
        "images": len(source.names) - len(damaged),
        "classes": source.num_classes,
        "sizes": dict(sizes.most_common(20)),
        "skipped": dict(skipped),
        "files_skipped": _names(source) | dict.fromkeys(damaged, "damaged"),
    }


def _names(source: Source) -> dict[str, str]:
    return dict(source.skipped)


def _lines(found: dict[str, Any]) -> list[str]:
    classes = f"{found['classes']} classes" if found["classes"] > 1 else "no classes"
    lines = [f"{found['name']}: {found['images']:,} images, {classes}"]
    if "fingerprint" in found:
        lines.append(f"as {'x'.join(map(str, found['shape']))}, fingerprint {found['fingerprint']}")
    else:
        lines.append(f"a look at their headers alone; for all of it, its fingerprint too: datasets {found['name']}")
    shown = [f"{size} ({count:,})" for size, count in list(found["sizes"].items())[:5]]
    more = len(found["sizes"]) - len(shown)
    lines.append(f"sizes: {', '.join(shown)}" + (f" and {more} or more others" if more else ""))
    for reason, count in found["skipped"].items():
        names = [Path(name).name for name, why in found["files_skipped"].items() if why == reason]
        lines.append(f"skipped {count:,}: {reason} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})")
    return lines
