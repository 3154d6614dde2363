"""The `tract-ray` command. But for sweeps it needs only the core: no Ray, MLflow or Optuna."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tract_ray import __version__
from tract_ray.cli import data, lists, models, reconstruct, record, runs, sampling, serve, sweeps
from tract_ray.terminal import run_app

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Distil diffusion models into samplers of one or a few steps. `tract-ray sweep` searches for the best.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"tract-ray {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the command itself."""


for group in (runs, sweeps, sampling, serve, models, reconstruct, data, record, lists):
    app.add_typer(group.app)


def main() -> None:
    """Entry point of the `tract-ray` command."""
    sweeping = sys.argv[1:2] == ["sweep"]
    run_app(app, "the same command with --resume continues" if sweeping else "the same command continues")


if __name__ == "__main__":
    main()
