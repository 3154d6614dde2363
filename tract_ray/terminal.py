"""How a command ends: bad input is one line and status 2, an interruption is one line and status 130."""

from __future__ import annotations

import sys
import warnings

import typer

from tract_ray.config import InputError


def run_app(app: typer.Typer) -> None:
    """Run a command line and exit with its status."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        app()
    except InputError as error:
        # Ray hands an error of a task on as one that carries the task's traceback; the cause is the line itself.
        print(f"error: {getattr(error, 'cause', error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command with --resume continues", file=sys.stderr)
        sys.exit(130)
