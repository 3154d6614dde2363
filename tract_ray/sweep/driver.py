"""A sweep from its checks to its table: a teacher, trials on Ray that Optuna chooses, a record in MLflow."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import optuna
from rich.console import Console

from tract_ray.analysis.findings import finding
from tract_ray.analysis.ledger import banked, ledger_of
from tract_ray.analysis.rows import finished, read_rows
from tract_ray.cluster.head import watched_head
from tract_ray.cluster.resources import (
    Slots,
    check_address,
    connect,
    stale_placement_groups,
    trial_device,
    wait_for_slots,
)
from tract_ray.cluster.retries import node_to_avoid
from tract_ray.cluster.run_on_tune import run_on_tune
from tract_ray.cluster.tasks import collect, start_references, train_teacher_on_cluster
from tract_ray.cluster.tune_searcher import StudySearcher
from tract_ray.config import InputError, choose, flatten, require
from tract_ray.disk import on_disk_full
from tract_ray.search.account import Account
from tract_ray.search.study import open_study
from tract_ray.search.warm_start import warm_start
from tract_ray.stopping import terminated
from tract_ray.sweep.definition import Sweep, SweepResult
from tract_ray.sweep.folder import add_wall_time, check_kept, identity, locked, remember
from tract_ray.sweep.follower import Follower
from tract_ray.sweep.publish import best_student, publish
from tract_ray.sweep.report import show_result, write_report
from tract_ray.terminal import Progress, make_console
from tract_ray.tracking import MlflowStore, Shipper, check_reachable, provenance, ui_command
from tract_ray.training import check_run, run_parameters
from tract_ray.training.checkpoint_writer import save_now
from tract_ray.training.stage_store import StageStore

SAVE_SECONDS = 1.5
"""What a sweep that ends before its time waits for its trials' checkpoints: `ray job stop` gives it three seconds."""
SHIP_SECONDS = 30.0


def run_sweep(sweep: Sweep, console: Console | None = None) -> SweepResult:
    """Run (or resume) the sweep; raises `InputError` for what can be known to be wrong before anything is trained."""
    console = console or make_console()
    on_disk_full(sweep.paths.on_disk_full, lambda text: console.print(f"note: {text}"))
    with ExitStack() as ours:
        # What can be wrong is found before any machine is asked for and before a file is written.
        if sweep.resume:
            require(sweep.folder.exists(), "name", f"there is no sweep {sweep.name!r} in {sweep.folder.parent}")
            ours.enter_context(locked(sweep))
            if note := remember(sweep):
                console.print(f"note: {note}")
            check_kept(sweep)
        else:
            require(not sweep.folder.exists(), "name", f"{sweep.name!r} is taken; add --resume, or choose another name")
        check_run(sweep.run, sweep.paths)
        if sweep.warm_start:
            directions = ["minimize"] * len(sweep.search.objectives)
            warm_start(optuna.create_study(directions=directions), _earlier(sweep), sweep.space.suggest, sweep.measured)
        check_reachable(sweep.mlflow_uri)
        check_address(sweep.ray_address)
        console.print(f"{sweep.name}: {sweep.question}")
        cluster = connect(sweep.ray_address)
        ours.enter_context(watched_head())
        wait_for_slots(sweep.request, sweep.wait_for_nodes, console.print)
        store = MlflowStore(sweep.mlflow_uri, sweep.experiment)
        if not sweep.resume:
            ours.enter_context(locked(sweep))
            remember(sweep)
        runs = sweep.search.trials * sweep.search.repeats
        limit = Slots(sweep.request, min(sweep.concurrency or runs, runs))
        stale = stale_placement_groups()
        if stale:
            console.print(f"note: {stale} placement groups of other jobs hold resources; trials queue behind them")
        console.print(f"{cluster}: up to {limit()} trials at once, {sweep.request.describe()} each")
        train_teacher_on_cluster(sweep.run, sweep.paths, sweep.request, console)
        about = {**provenance(), "device": trial_device(sweep.request)}
        params = {**run_parameters(sweep.run), **about, **flatten(sweep.search, "search."), "sweep": sweep.name}
        parent = store.sweep_run(sweep.name, params, sweep.question, identity(sweep))
        try:
            return _search(sweep, store, parent, about, limit, console)
        except BaseException as error:
            with suppress(Exception):  # the record must not hide what went wrong
                store.close(parent, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise


def _search(
    sweep: Sweep, store: MlflowStore, parent: str, about: dict[str, str], limit: Slots, console: Console
) -> SweepResult:
    """All trials, then the report: to the sweep's folder, to MLflow and to the console."""
    begun = time.monotonic()
    pending = start_references(sweep.run, sweep.paths, sweep.request, sweep.reference_steps)
    study = open_study(sweep.folder / "study.db", sweep.name, sweep.space, sweep.search, sweep.measured)
    for name, count in warm_start(study, _earlier(sweep), sweep.space.suggest, sweep.measured).items():
        console.print(f"warm start: {count} finished trials of {name}")
    trouble, account, ran = _run_trials(sweep, study, store, parent, about, limit, console)
    rows = read_rows(study, sweep.folder / "trials")
    if not rows and sweep.search.budget:
        budget = sweep.search.budget.describe()
        raise InputError(f"budget: {budget} have no room for the first configuration with all its seeds")
    reference = collect(pending)
    wall = add_wall_time(sweep, time.monotonic() - begun if ran else 0.0)
    ledger = ledger_of(account, banked(account, {row.number: len(row.distances) for row in rows}), wall, limit.highest)
    failed = [row.name for row in rows if row.status == "failed"]
    best = finished(rows)
    said = finding(best, costly=len(sweep.search.objectives) > 1)
    result = SweepResult(sweep.name, rows, reference, parent, failed, ledger, said)
    if best:
        student = best_student(best[0], sweep.run, sweep.folder / "trials", sweep.paths)
        write_report(sweep.folder, study, result, student, sweep.run.teacher, sweep.paths)
        trouble = publish(sweep.folder, store, result, student) or trouble
    with suppress(Exception):  # a server that is away: `trouble` says so
        store.close(parent, "FAILED" if result.failed else "FINISHED")
    show_result(result, console)
    if trouble:
        console.print(f"note: part of the record is not in MLflow ({trouble}); --resume sends it")
    console.print(f"\nCompare the trials:  {ui_command(sweep.mlflow_uri, store.experiment_id)}")
    return result


def _run_trials(
    sweep: Sweep,
    study: optuna.Study,
    store: MlflowStore,
    parent: str,
    about: dict[str, str],
    limit: Slots,
    console: Console,
) -> tuple[str, Account, bool]:
    """Hand the study's trials to Tune until they have ended; returns what kept the record out of MLflow, the account,
    and whether there was anything to run.
    """
    trials, search = sweep.folder / "trials", sweep.search
    with Progress(sweep.experiment.replace("_", " "), 0, console.file) as progress:
        follower = Follower(study, trials, sweep.run, Shipper(store, sweep.name, parent), about, progress)
        request = sweep.request
        searcher = StudySearcher(
            study,
            sweep.space,
            sweep.run,
            search,
            follower.started,
            follower.ended,
            StageStore(sweep.paths),
            limit,
            sweep.retries,
            follower.retried,
            partial(node_to_avoid, cpus=request.cpus, gpus=request.gpus),
        )
        follower.expect = searcher.queue.foreseen
        follower.catch_up()
        todo = searcher.todo()
        try:
            if todo:
                run_on_tune(
                    sweep.trainable,
                    searcher,
                    folder=sweep.folder,
                    paths=sweep.paths,
                    request=sweep.request,
                    patience=sweep.wait_for_nodes,
                )
        except KeyboardInterrupt:
            save_now([trials / job.name for job in searcher.live.values()], SAVE_SECONDS)
            raise
        finally:
            trouble = follower.close(0.0 if terminated() else SHIP_SECONDS)
        return trouble, searcher.account, todo > 0


def _earlier(sweep: Sweep) -> list[tuple[Path, str]]:
    """The studies that the search may learn from."""
    folder = sweep.paths.storage / "sweeps"
    known = [file.parent.name for file in folder.glob("*/study.db")]
    return [(folder / choose("warm-start", name, known) / "study.db", name) for name in sweep.warm_start]
