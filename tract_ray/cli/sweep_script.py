"""The command line that every sweep script has."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from tract_ray.cli.arguments import SCORED, Features, FromRecipe, MicroBatch, OnDiskFull, Setting, settings
from tract_ray.cluster.resources import Request
from tract_ray.search.study import MACHINE, Search
from tract_ray.sweep.definition import Sweep, SweepResult
from tract_ray.sweep.driver import run_sweep
from tract_ray.sweep.dry_run import print_plan
from tract_ray.sweep.options import Options
from tract_ray.sweep.script import Plan, Script
from tract_ray.sweep.start import make_sweep
from tract_ray.terminal import make_console, run_app
from tract_ray.training import Paths, check_run

CONTINUES = "the same command with --resume continues"


def sweep_command(experiment: str, doc: str | None, plan: Plan, **defaults: Any) -> None:
    """Run the sweep script's command line and exit.

    `doc` is its help; its first line is the question it asks. `plan` makes the space and the run that trials start
    from; `trials`, `repeats` and `pruner` are the script's own defaults, `objectives` cannot be chosen.
    """
    run_app(sweep_app(Script(name=experiment, doc=doc or "", plan=plan, defaults=defaults)), CONTINUES)


class _Resumable(typer.core.TyperCommand):
    """A command whose `--resume NAME` is `--resume --name NAME`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _resume_with_name(args))


def sweep_app(script: Script) -> typer.Typer:
    """The command line of a script: its options are the same for all, its defaults its own."""
    own = script.defaults

    def main(
        # What is searched
        trials: Annotated[int, Option(help="How many trials to run.")] = own.get("trials", Search.trials),
        dataset: Annotated[
            str | None, Option(help="digits (the default but for a recipe), digits16, cifar10 or folder:PATH@SIZE.")
        ] = Options.dataset,
        recipe: FromRecipe = Options.recipe,
        network: Annotated[str | None, Option(help="Network preset (see `tract-ray networks`).")] = Options.network,
        method: Annotated[
            str | None, Option(help="See `tract-ray methods`; default: tract, or what suits the teacher.")
        ] = Options.kind,
        time_schedule: Annotated[
            str | None, Option(help="Sampler steps before and after each phase: 1024,32,1.")
        ] = Options.time_schedule,
        samples: Annotated[str | None, Option(help="Training images of each trial: 128000, 64k, 96M.")] = None,
        batch: Annotated[int | None, Option(help="Global batch of a trial.")] = Options.batch,
        lr: Annotated[float | None, Option(help="Learning rate of a trial.")] = Options.lr,
        pairs: Setting = None,
        teacher: Annotated[
            str | None, Option(help="A model folder, instead of training the teacher.")
        ] = Options.teacher,
        teacher_samples: Annotated[str | None, Option(help="Training images of the teacher.")] = None,
        evaluation_samples: Annotated[
            int | None, Option(help=f"Images that score a finished trial; default: {SCORED}.")
        ] = Options.evaluation_samples,
        features: Features = Options.features,
        fixed: Annotated[
            str,
            Option(help="Where phases vary, what stays: the 'overall' length of a trial, or the length 'per-phase'."),
        ] = Options.fixed,
        seed: Annotated[int, Option(help="Seed of the search and of every trial.")] = Options.seed,
        # How
        repeats: Annotated[int, Option(help="Seeds of each configuration that is not stopped.")] = own.get(
            "repeats", Search.repeats
        ),
        sampler: Annotated[str, Option(help="tpe, gp, cmaes, random, grid or qmc (Optuna's).")] = Search.sampler,
        pruner: Annotated[
            str, Option(help="halving (ASHA on samples seen), median (of earlier trials) or none.")
        ] = own.get("pruner", Search.pruner),
        reduction: Annotated[int, Option(help="Halving keeps one trial in this many at each rung.")] = Search.reduction,
        rungs: Annotated[int, Option(help="Trials compete at so many marks of the last phase.")] = Search.rungs,
        early_stopping: Annotated[bool, Option(help="--no-early-stopping is --pruner none.")] = True,
        finish_anchors: Annotated[
            bool, Option(help="Never stop the anchors, so that a response curve has its ends.")
        ] = Search.finish_anchors,
        budget: Annotated[str | None, Option(help="End after so many images (3M) or device time (1.5h).")] = None,
        warm_start: Annotated[
            str | None, Option(help="Earlier sweeps whose trials the sampler may learn from, comma-separated.")
        ] = None,
        # On which machines
        workers_per_trial: Annotated[
            int, Option(help="Processes a trial trains on (DDP when several).")
        ] = Request.workers,
        cpus_per_worker: Annotated[int, Option(help="CPUs of each.")] = Request.cpus,
        gpus_per_worker: Annotated[int, Option(help="GPUs of each.")] = Request.gpus,
        concurrency: Annotated[int, Option(help="Trials at once; 0: as many as fit.")] = Sweep.concurrency,
        retries: Annotated[int, Option(help="How often a trial that a machine failed is begun again.")] = Sweep.retries,
        wait_for_nodes: Annotated[
            float, Option(help="Seconds to wait for nodes of a cluster that grows, while no trial fits.")
        ] = Sweep.wait_for_nodes,
        ray_address: Annotated[
            str | None, Option(help="Ray cluster HOST:PORT; default: this machine's, else a local one.")
        ] = None,
        data_root: Annotated[str | None, Option(help="Where downloaded data sets live.")] = None,
        checkpoint_seconds: Annotated[float, Option(help="Seconds between a trial's checkpoints; 0: none.")] = 60.0,
        on_disk_full: OnDiskFull = "wait",
        micro_batch: MicroBatch = 0,
        # Where the record goes
        storage: Annotated[
            Path | None, Option(help="Folder of runs and caches, shared by all nodes (default: runs).")
        ] = None,
        mlflow_uri: Annotated[
            str | None,
            Option(help="MLflow server or database; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."),
        ] = None,
        name: Annotated[str | None, Option(help="Name of the sweep (default: from the date).")] = None,
        resume: Annotated[bool, Option("--resume", help="Continue the sweep of that name, or the newest one.")] = False,
        dry_run: Annotated[
            bool, Option("--dry-run", help="Print space, resources, trainings and cost; run nothing.")
        ] = False,
    ) -> None:
        options = Options(
            dataset=dataset,
            recipe=recipe,
            network=network,
            kind=method,
            time_schedule=time_schedule,
            samples=samples,
            batch=batch,
            lr=lr,
            settings=settings(pairs),
            teacher=teacher,
            teacher_samples=teacher_samples,
            evaluation_samples=evaluation_samples,
            features=features,
            seed=seed,
            fixed=fixed,
            trials=trials,
        )
        search = {
            "repeats": repeats,
            "sampler": sampler,
            "pruner": pruner if early_stopping else "none",
            "reduction": reduction,
            "rungs": rungs,
            "finish_anchors": finish_anchors,
        }
        sweep = make_sweep(
            script,
            options,
            search,
            budget=budget,
            warm_start=[part for part in (warm_start or "").split(",") if part],
            request=Request(workers_per_trial, cpus_per_worker, gpus_per_worker),
            concurrency=concurrency,
            retries=retries,
            wait_for_nodes=wait_for_nodes,
            ray_address=ray_address,
            paths=Paths.at(storage, data_root, checkpoint_seconds, on_disk_full, micro_batch),
            mlflow_uri=mlflow_uri,
            name=name,
            resume=resume,
        )
        console = make_console()
        if dry_run:
            check_run(sweep.run, sweep.paths)  # what the sweep would refuse is refused now
            print_plan(sweep, console)
            return
        result = run_sweep(sweep, console)
        if result.failed:
            print(f"error: {_failures(sweep, result)}", file=sys.stderr)
            raise typer.Exit(1)

    main.__doc__ = script.doc
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(cls=_Resumable)(main)
    return app


def _failures(sweep: Sweep, result: SweepResult) -> str:
    """How many trials failed, and why the first of them did."""
    first = result.failed[0]
    reason = next(row.reason for row in result.rows if row.name == first)
    machine = reason == MACHINE
    if reason and not machine:
        return f"{len(result.failed)} of {len(result.rows)} trials failed; {first}: {reason}"
    trials = sweep.folder / "trials"  # it may be a further seed that failed
    seeds = sorted(file for name in (first, f"{first}.*") for file in trials.glob(f"{name}/error.txt"))
    named = seeds[0].parent.name if seeds else first
    lines = seeds[0].read_text(errors="replace").strip().splitlines() if seeds else []
    reason = lines[-1] if lines else "its worker died"
    reason += "; --resume tries it again" if machine else ""
    return f"{len(result.failed)} of {len(result.rows)} trials failed; {named}: {reason}"


def _resume_with_name(arguments: Sequence[str]) -> list[str]:
    """`--resume NAME` is `--resume --name NAME`."""
    for place, argument in enumerate(arguments[:-1]):
        following = arguments[place + 1]
        if argument == "--resume" and not following.startswith("-"):
            return [*arguments[: place + 1], "--name", *arguments[place + 1 :]]
    return list(arguments)
