"""Options that several commands have, and how their text becomes values."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from tract_ray.config import InputError, require

Dataset = Annotated[
    str | None, typer.Option(help="digits (default), digits16, cifar10, imagenet64 or folder:PATH@SIZE.")
]
FromRecipe = Annotated[
    str | None, typer.Option("--recipe", help="Settings by name (`tract-ray recipes`), or a JSON or TOML file of them.")
]
Network = Annotated[str | None, typer.Option(help="Network preset; default: the data set's.")]
Storage = Annotated[Path | None, typer.Option(help="Folder of runs and caches; default: runs.")]
DataRoot = Annotated[str | None, typer.Option(help="Where downloaded data sets live.")]
SkipDamaged = Annotated[bool, typer.Option("--skip-damaged", help="Leave out images on disk that cannot be read.")]
CheckpointSeconds = Annotated[float, typer.Option(help="Seconds between checkpoints; 0: only where it is scored.")]
OnDiskFull = Annotated[str, typer.Option(help="On a full disk: wait (for room) or fail.")]
MicroBatch = Annotated[int, typer.Option(help="Images of a batch that a process computes at a time; 0: all it has.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: the GPU where there is one.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0: torch's own choice.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else to standard output.")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the method, NAME=VALUE (mu_s=0.9); repeatable."),
]
Samples = Annotated[str | None, typer.Option(help="Training images: 128000, 64k (64,000), 96M (96 x 2^20).")]
Features = Annotated[
    str,
    typer.Option(help="classifier, random, inception_clean, inception_legacy_tensorflow or inception_legacy_pytorch."),
]
SCORED = "50,000 of photographs, 4,000 of digits"
LABELLED = "balanced or random; default: random for photographs"
Checkpoint = Annotated[Path, typer.Argument(help="Model folder of a teacher or a student.")]
Steps = Annotated[int | None, typer.Option(help="The sampler's steps; default: the model's own.")]
Sampler = Annotated[
    str | None, typer.Option("--sampler", help="ddim, euler, heun or ancestral; default: the one it is made for.")
]
SamplerSetting = Annotated[
    list[str] | None,
    typer.Option("--sampler-set", help="A setting of the sampler, NAME=VALUE (s_churn=40); repeatable."),
]


def numbers(field: str, text: str | None, kind: type) -> tuple[Any, ...] | None:
    """`"0,0.9"` -> `(0.0, 0.9)`; None where nothing was given."""
    if not text:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{field}: {text!r} is not a list of numbers separated by commas") from None


def settings(pairs: list[str] | None, field: str = "set") -> dict[str, Any]:
    """`["mu_s=0.9"]` -> `{"mu_s": 0.9}`; values are read as JSON where they are JSON, lists become tuples."""
    found: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        require(bool(equals), field, f"{pair!r} is not NAME=VALUE")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        require(value is not None, field, f"{pair!r} would be left out; give a value")
        found[name.strip()] = tuple(value) if isinstance(value, list) else value
    return found


def progress(as_json: bool) -> IO[str]:
    """Where progress goes: out of the way of JSON."""
    return sys.stderr if as_json else sys.stdout


def show(result: dict[str, Any], as_json: bool, text: str) -> None:
    """Print the result, for a program or for a person."""
    print(json.dumps(result, indent=2) if as_json else text)
