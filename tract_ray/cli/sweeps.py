"""`tract-ray sweep`: the sweeps of this package by name, and anybody's by the path of their script."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from tract_ray.config import InputError
from tract_ray.sweep.script_files import find_script, known_scripts, question_of

EXTRA = ("ray", "optuna", "mlflow", "matplotlib", "cmaes")  # of `pip install 'tract-ray[cluster]'`


class _Scripts(TyperGroup):
    """Each script is a command. It is run only when it is called: a list of them imports no Ray."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(known_scripts())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        path = find_script(cmd_name)
        try:
            from tract_ray.cli.sweep_script import sweep_app
            from tract_ray.sweep.script import load_script
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in EXTRA:
                raise
            raise InputError(f"sweep: {error.name} is missing; pip install 'tract-ray[cluster]'") from None
        command = typer.main.get_command(sweep_app(load_script(path)))
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Sweeps"):
            formatter.write_dl([(name, question_of(path)) for name, path in known_scripts().items()])


HELP = """Search on a Ray cluster: one of these sweeps by its name, or your own script by its path.

A script is a Python file whose first line is its question, with one function that says what it varies:

\b
    def suggest(trial):
        return {"method.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}

`tract-ray sweep NAME --help` explains the options, which are the same for all.
"""

app = typer.Typer(
    cls=_Scripts,
    name="sweep",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    subcommand_metavar="NAME|SCRIPT.py",
)


@app.callback()
def sweep() -> None:
    pass
