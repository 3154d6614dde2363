"""The command line that every sweep script has."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tract_ray.config import InputError
from tract_ray.files import read_json
from tract_ray.terminal import run_app
from tract_ray.tracking import tracking_uri
from tract_ray.training import Paths, RunConfig
from tract_ray.training.paths import project_folder
from tract_ray.tuning.budget import parse_budget
from tract_ray.tuning.options import Options
from tract_ray.tuning.plan import print_plan
from tract_ray.tuning.resources import Request
from tract_ray.tuning.space import Space
from tract_ray.tuning.study import Search, limit
from tract_ray.tuning.sweep import Sweep, run_sweep

WHAT, SEARCH, WHERE, RECORD = "What is searched", "How", "On which machines", "Where the record goes"


Plan = Callable[[Options], tuple[Space, RunConfig]]


def sweep_command(
    experiment: str,
    doc: str | None,
    plan: Plan,
    *,
    trials: int = 12,
    repeats: int = 1,
    pruner: str = "halving",
    objectives: tuple[str, ...] = ("distance",),
) -> None:
    """Run the sweep script's command line and exit.

    `doc` is its help; its first line is the question it asks. `plan` makes the space and the run that trials start
    from; `trials`, `repeats` and `pruner` are the script's own defaults.
    """
    question = (doc or experiment).strip().splitlines()[0]
    own = {"trials": trials, "repeats": repeats, "pruner": pruner}

    def main(
        trials: Annotated[int, typer.Option(help="How many trials to run.", rich_help_panel=WHAT)] = own["trials"],  # type: ignore[assignment]
        dataset: Annotated[
            str, typer.Option(help="digits, digits16, cifar10 or folder:PATH@SIZE.", rich_help_panel=WHAT)
        ] = "digits",
        network: Annotated[
            str | None, typer.Option(help="Network preset (see `tract-ray networks`).", rich_help_panel=WHAT)
        ] = None,
        time_schedule: Annotated[
            str, typer.Option(help="Sampler steps before and after each phase.", rich_help_panel=WHAT)
        ] = "1024,32,1",
        samples: Annotated[
            str | None, typer.Option(help="Training images of each trial: 128000, 64k, 96M.", rich_help_panel=WHAT)
        ] = None,
        batch: Annotated[int | None, typer.Option(help="Global batch of a trial.", rich_help_panel=WHAT)] = None,
        lr: Annotated[float | None, typer.Option(help="Learning rate of a trial.", rich_help_panel=WHAT)] = None,
        teacher: Annotated[
            str | None, typer.Option(help="A model folder, instead of training the teacher.", rich_help_panel=WHAT)
        ] = None,
        teacher_samples: Annotated[
            str | None, typer.Option(help="Training images of the teacher.", rich_help_panel=WHAT)
        ] = None,
        evaluation_samples: Annotated[
            int, typer.Option(help="Images that score a finished trial.", rich_help_panel=WHAT)
        ] = 4000,
        features: Annotated[
            str, typer.Option(help="classifier, inception_clean or inception_legacy.", rich_help_panel=WHAT)
        ] = "",
        fixed: Annotated[
            str,
            typer.Option(
                help="Where phases vary, what stays: the 'overall' length of a trial, or the length 'per-phase'.",
                rich_help_panel=WHAT,
            ),
        ] = "overall",
        seed: Annotated[int, typer.Option(help="Seed of the search and of every trial.", rich_help_panel=WHAT)] = 0,
        repeats: Annotated[
            int, typer.Option(help="Seeds of each configuration that is not stopped.", rich_help_panel=SEARCH)
        ] = own["repeats"],  # type: ignore[assignment]
        sampler: Annotated[
            str, typer.Option(help="tpe, gp, cmaes, random, grid or qmc (Optuna's).", rich_help_panel=SEARCH)
        ] = "tpe",
        pruner: Annotated[
            str,
            typer.Option(
                help="halving (ASHA on samples seen), median (of earlier trials) or none.", rich_help_panel=SEARCH
            ),
        ] = own["pruner"],  # type: ignore[assignment]
        reduction: Annotated[
            int, typer.Option(help="Halving keeps one trial in this many at each rung.", rich_help_panel=SEARCH)
        ] = 3,
        early_stopping: Annotated[
            bool, typer.Option(help="--no-early-stopping is --pruner none.", rich_help_panel=SEARCH)
        ] = True,
        finish_anchors: Annotated[
            bool,
            typer.Option(help="Never stop the anchors, so that a response curve has its ends.", rich_help_panel=SEARCH),
        ] = False,
        budget: Annotated[
            str | None,
            typer.Option(help="End after so many images (3M) or device time (1.5h).", rich_help_panel=SEARCH),
        ] = None,
        warm_start: Annotated[
            str | None,
            typer.Option(
                help="Earlier sweeps whose trials the sampler may learn from, comma-separated.", rich_help_panel=SEARCH
            ),
        ] = None,
        workers_per_trial: Annotated[
            int, typer.Option(help="Processes a trial trains on (DDP when several).", rich_help_panel=WHERE)
        ] = 1,
        cpus_per_worker: Annotated[int, typer.Option(help="CPUs of each.", rich_help_panel=WHERE)] = 1,
        gpus_per_worker: Annotated[int, typer.Option(help="GPUs of each.", rich_help_panel=WHERE)] = 0,
        concurrency: Annotated[int, typer.Option(help="Trials at once; 0: as many as fit.", rich_help_panel=WHERE)] = 0,
        ray_address: Annotated[
            str | None,
            typer.Option(
                help="Ray cluster HOST:PORT; default: this machine's, else a local one.", rich_help_panel=WHERE
            ),
        ] = None,
        data_root: Annotated[
            str | None, typer.Option(help="Where downloaded data sets live.", rich_help_panel=WHERE)
        ] = None,
        storage: Annotated[
            Path | None,
            typer.Option(
                help="Folder of runs and caches, shared by all nodes (default: runs).", rich_help_panel=RECORD
            ),
        ] = None,
        mlflow_uri: Annotated[
            str | None,
            typer.Option(
                help="MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.",
                rich_help_panel=RECORD,
            ),
        ] = None,
        name: Annotated[
            str | None, typer.Option(help="Name of the sweep (default: from the date).", rich_help_panel=RECORD)
        ] = None,
        resume: Annotated[
            bool,
            typer.Option(
                "--resume", help="Continue the sweep of that name, or the newest one.", rich_help_panel=RECORD
            ),
        ] = False,
        dry_run: Annotated[
            bool,
            typer.Option(
                "--dry-run", help="Print space, resources, trainings and cost; run nothing.", rich_help_panel=RECORD
            ),
        ] = False,
    ) -> None:
        paths = Paths.at(storage, data_root)
        options = Options(
            dataset=dataset,
            network=network,
            time_schedule=time_schedule,
            samples=samples,
            batch=batch,
            lr=lr,
            teacher=teacher,
            teacher_samples=teacher_samples,
            evaluation_samples=evaluation_samples,
            features=features,
            seed=seed,
            fixed=fixed,
            trials=trials,
        )
        options.schedule()
        space, run = plan(options)
        search = Search(
            trials=trials,
            repeats=repeats,
            seed=seed,
            sampler=sampler,
            pruner=pruner if early_stopping else "none",
            reduction=reduction,
            finish_anchors=finish_anchors,
            objectives=objectives,
            budget=parse_budget(budget, run.method.samples * repeats) if budget else None,
        )
        search = replace(search, trials=limit(space, search))
        sweep = Sweep(
            experiment=experiment,
            question=question,
            space=space,
            run=run,
            name=name or (newest(paths, experiment) if resume else f"{experiment}-{time.strftime('%Y%m%d-%H%M%S')}"),
            search=search,
            warm_start=tuple(part for part in (warm_start or "").split(",") if part),
            request=Request(workers_per_trial, cpus_per_worker, gpus_per_worker),
            concurrency=concurrency,
            resume=resume,
            paths=paths,
            mlflow_uri=tracking_uri(mlflow_uri, project_folder()),
            ray_address=ray_address,
        )
        console = Console(highlight=False, soft_wrap=True)
        if dry_run:
            print_plan(sweep, console)
            return
        result = run_sweep(sweep, console)
        if result.failed:
            first = sweep.folder / "trials" / result.failed[0] / "error.txt"
            reason = first.read_text().strip().splitlines()[-1] if first.is_file() else "its worker died"
            print(
                f"error: {len(result.failed)} of {len(result.rows)} trials failed; {result.failed[0]}: {reason}",
                file=sys.stderr,
            )
            raise typer.Exit(1)

    main.__doc__ = doc
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    sys.argv[1:] = _resume_with_name(sys.argv[1:])
    run_app(app, "the same command with --resume continues")


def _resume_with_name(arguments: list[str]) -> list[str]:
    """`--resume NAME` is `--resume --name NAME`."""
    for place, argument in enumerate(arguments[:-1]):
        following = arguments[place + 1]
        if argument == "--resume" and not following.startswith("-"):
            return [*arguments[: place + 1], "--name", *arguments[place + 1 :]]
    return arguments


def newest(paths: Paths, experiment: str) -> str:
    """The name of the sweep of this experiment that was touched last."""
    files = (paths.storage / "sweeps").glob("*/sweep.json")
    own = [file for file in files if read_json(file, "resume").get("experiment") == experiment]
    if not own:
        raise InputError(f"resume: there is no {experiment} sweep in {paths.storage / 'sweeps'}")
    return max(own, key=lambda file: file.stat().st_mtime).parent.name
