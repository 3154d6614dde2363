"""The commands about the record of sweeps: record move."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tract_ray.config import require
from tract_ray.training.paths import project_folder

app = typer.Typer()
record = typer.Typer(no_args_is_help=True, help="The record of sweeps in MLflow.", rich_markup_mode=None)
app.add_typer(record, name="record")


@record.callback()
def _record() -> None:
    """The record of sweeps in MLflow."""


@record.command()
def move(
    mlflow_uri: Annotated[
        str | None,
        typer.Option(help="Database file where it lies now; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."),
    ] = None,
) -> None:
    """After its folder was moved, renamed or copied: point the record's addresses to where its artifacts lie now.

    Sweeps, `load_sweep` and the notebook do so by themselves; `mlflow ui` does not. What a server keeps has no such
    addresses.
    """
    from tract_ray.tracking import mend_moved, tracking_uri
    from tract_ray.tracking.moved import ARTIFACTS, SQLITE

    uri = tracking_uri(mlflow_uri, project_folder())
    require(uri.startswith(SQLITE), "mlflow-uri", f"only the addresses of a database file move ({SQLITE}mlflow.db)")
    database = Path(uri.removeprefix(SQLITE)).absolute()
    require(database.is_file(), "mlflow-uri", f"{database} does not exist")
    changed = mend_moved(uri)
    place = database.parent / ARTIFACTS
    print(f"{database}: {changed} addresses now point to {place}" if changed else f"{database}: nothing to mend")
