"""A sweep: a teacher, trials on Ray that Optuna chooses, a record in MLflow, and a table at the end."""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from rich.console import Console

from tract_ray.config import InputError, config_hash, flatten, require, to_dict
from tract_ray.files import read_json, write_text
from tract_ray.terminal import Progress
from tract_ray.tracking import MlflowStore, Shipper, check_reachable, provenance, ui_command
from tract_ray.training import Paths, RunConfig, Score, check_run, run_parameters
from tract_ray.training.stages import StageStore, run_samples
from tract_ray.tuning.follow import Follower
from tract_ray.tuning.ledger import Ledger, ledger_of
from tract_ray.tuning.publish import publish
from tract_ray.tuning.report import show_result, write_report
from tract_ray.tuning.resources import (
    Request,
    check_address,
    check_fits,
    connect,
    stale_placement_groups,
    trial_device,
)
from tract_ray.tuning.results import TrialRow, finished, read_rows
from tract_ray.tuning.samplers import check_sampler
from tract_ray.tuning.searcher import StudyScheduler, StudySearcher
from tract_ray.tuning.space import Space, apply_changes
from tract_ray.tuning.statistics import verdict
from tract_ray.tuning.study import Search, open_study
from tract_ray.tuning.tasks import start_references, train_teacher_on_cluster
from tract_ray.tuning.trial import run_trial
from tract_ray.tuning.warm_start import warm_start

# A resumed sweep may be given more trials or another budget; its seed is compared with the run's.
EXTENDABLE = ("search.trials", "search.seed", "search.budget", "search.budget.images", "search.budget.seconds")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep script hands over. `question` is the sentence it asks; `run` is what every trial starts from."""

    experiment: str
    question: str
    space: Space
    run: RunConfig
    name: str
    search: Search = field(default_factory=Search)
    warm_start: tuple[str, ...] = ()
    request: Request = field(default_factory=Request)
    concurrency: int = 0
    resume: bool = False
    paths: Paths
    mlflow_uri: str
    ray_address: str | None = None
    reference_steps: tuple[int, ...] = (1024, 32, 1)
    trainable: Callable[[dict[str, Any]], None] = run_trial

    def __post_init__(self) -> None:
        require(
            bool(re.fullmatch(r"\w[\w.-]*", self.name)), "name", f"{self.name!r} has more than letters, digits and ._-"
        )
        check_sampler(self.search.sampler, self.space.suggest, objectives=len(self.search.objectives))
        require(self.concurrency >= 0, "concurrency", f"must not be negative, got {self.concurrency}")
        require(
            self.run.method.batch % self.request.workers == 0,
            "workers-per-trial",
            f"a batch of {self.run.method.batch} does not divide among {self.request.workers} workers",
        )

    @property
    def folder(self) -> Path:
        """Everything of this sweep: its study, its trials, its plots."""
        return self.paths.storage / "sweeps" / self.name


@dataclass(frozen=True)
class SweepResult:
    """What `run_sweep` returns and `summary.json` holds."""

    name: str
    rows: list[TrialRow]
    reference: list[Score]
    parent_run: str
    failed: list[str]
    ledger: Ledger
    verdict: str = ""


def run_sweep(sweep: Sweep, console: Console | None = None) -> SweepResult:
    """Run (or resume) the sweep; raises `InputError` for what can be known to be wrong before anything is trained."""
    console = console or Console(highlight=False, soft_wrap=True)
    with ExitStack() as ours:
        # What can be wrong is found before any machine is asked for and before a file is written.
        if sweep.resume:
            require(sweep.folder.exists(), "name", f"there is no sweep {sweep.name!r} in {sweep.folder.parent}")
            ours.enter_context(_locked(sweep))
            _remember(sweep)
        else:
            require(not sweep.folder.exists(), "name", f"{sweep.name!r} is taken; add --resume, or choose another name")
        check_run(sweep.run, sweep.paths)
        if sweep.warm_start:
            directions = ["minimize"] * len(sweep.search.objectives)
            warm_start(optuna.create_study(directions=directions), _earlier(sweep), sweep.space.suggest)
        check_reachable(sweep.mlflow_uri)
        check_address(sweep.ray_address)
        console.print(f"{sweep.name}: {sweep.question}")
        cluster = connect(sweep.ray_address)
        slots = check_fits(sweep.request)
        store = MlflowStore(sweep.mlflow_uri, sweep.experiment)
        if not sweep.resume:
            ours.enter_context(_locked(sweep))
            _remember(sweep)
        concurrency = min(slots, sweep.concurrency or slots, sweep.search.trials * sweep.search.repeats)
        stale = stale_placement_groups()
        if stale:
            console.print(f"note: {stale} placement groups of other jobs hold resources; trials queue behind them")
        console.print(f"{cluster}: up to {concurrency} trials at once, {sweep.request.describe()} each")
        train_teacher_on_cluster(sweep.run, sweep.paths, sweep.request, console)
        about = {**provenance(), "device": trial_device(sweep.request)}
        params = {**run_parameters(sweep.run), **about, **flatten(sweep.search, "search."), "sweep": sweep.name}
        parent = store.sweep_run(sweep.name, params, sweep.question)
        try:
            return _search(sweep, store, parent, about, concurrency, console)
        except BaseException as error:
            with suppress(Exception):  # the record must not hide what went wrong
                store.close(parent, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise


def _search(
    sweep: Sweep, store: MlflowStore, parent: str, about: dict[str, str], concurrency: int, console: Console
) -> SweepResult:
    """All trials, then the report: to the sweep's folder, to MLflow and to the console."""
    begun = time.monotonic()
    pending = start_references(sweep.run, sweep.paths, sweep.request, sweep.reference_steps)
    study = open_study(sweep.folder / "study.db", sweep.name, sweep.space, sweep.search)
    for name, count in warm_start(study, _earlier(sweep), sweep.space.suggest).items():
        console.print(f"warm start: {count} finished trials of {name}")
    trouble, ran = _run_trials(sweep, study, store, parent, about, concurrency, console)
    rows = read_rows(study, sweep.folder / "trials")
    reference = ray.get(pending)
    totals = [run_samples(apply_changes(sweep.run, row.changes)) for row in rows]
    ledger = ledger_of(
        rows, sweep.search.repeats, totals, _clock(sweep, time.monotonic() - begun if ran else 0.0), concurrency
    )
    failed = [r.name for r in rows if r.status == "failed"]
    best = finished(rows)
    different = {json.dumps(row.changes, sort_keys=True): row for row in reversed(best)}.values()
    said = verdict({row.label: row.seeds or (row.distance or 0.0,) for row in different}).text if best else ""
    result = SweepResult(sweep.name, rows, reference, parent, failed, ledger, said)
    if finished(rows):
        write_report(sweep.folder, study, result)
        trouble = publish(sweep.folder, store, result) or trouble
    with suppress(Exception):  # a server that is away: `trouble` says so
        store.close(parent, "FAILED" if result.failed else "FINISHED")
    show_result(result, console)
    if trouble:
        console.print(f"note: part of the record is not in MLflow ({trouble}); --resume sends it")
    console.print(f"\nCompare the trials:  {ui_command(sweep.mlflow_uri, store.experiment_id)}")
    return result


def _earlier(sweep: Sweep) -> list[tuple[Path, str]]:
    """The studies that the search may learn from."""
    return [(sweep.paths.storage / "sweeps" / name / "study.db", name) for name in sweep.warm_start]


def _clock(sweep: Sweep, seconds: float) -> float:
    """Wall time of the sweep, that of earlier drivers which came to an end included."""
    file = sweep.folder / "clock.json"
    total = seconds + (read_json(file, "storage")["seconds"] if file.is_file() else 0.0)
    write_text(file, json.dumps({"seconds": total}))
    return total


def _run_trials(
    sweep: Sweep,
    study: optuna.Study,
    store: MlflowStore,
    parent: str,
    about: dict[str, str],
    concurrency: int,
    console: Console,
) -> tuple[str, bool]:
    """Hand the study's trials to Tune until they have ended; returns what kept the record out of MLflow, and whether
    there was anything to run.
    """
    trials, search = sweep.folder / "trials", sweep.search
    total = sweep.run.method.samples * search.trials * search.repeats
    with Progress(sweep.experiment.replace("_", " "), total, console.file) as progress:
        follower = Follower(study, trials, sweep.run, Shipper(store, sweep.name, parent), about, progress)
        follower.catch_up()
        searcher = StudySearcher(
            study, sweep.space, sweep.run, search, follower.started, follower.ended, StageStore(sweep.paths)
        )
        todo = searcher.todo()
        try:
            if todo:
                _tune(sweep, searcher, concurrency)
        finally:
            trouble = follower.close()
        return trouble, todo > 0


def _tune(sweep: Sweep, searcher: StudySearcher, concurrency: int) -> None:
    """Let Tune run what `searcher` hands out, until it says that there is no more."""
    attempt = 1 + sum(1 for _ in (sweep.folder / "tune").glob("attempt-*"))
    paths = {"storage": str(sweep.paths.storage), "cache": str(sweep.paths.cache)}
    tune.Tuner(
        tune.with_resources(sweep.trainable, _resources(sweep.request)),
        param_space={
            "folder": str(sweep.folder / "trials"),
            "paths": {**paths, "data_root": sweep.paths.data_root},
            "workers": sweep.request.workers,
            "cpus": sweep.request.cpus,
            "gpus": sweep.request.gpus,
        },
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(searcher),
            num_samples=-1,
            max_concurrent_trials=concurrency,
            reuse_actors=sweep.request.workers == 1,
        ),
        run_config=tune.RunConfig(
            name=f"attempt-{attempt:03d}",
            storage_path=str(sweep.folder / "tune"),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    ).fit()


def _resources(request: Request) -> Any:
    """One worker: the trial's own actor computes. Several: the actor only drives, and must not hold their CPUs."""
    if request.workers == 1:
        return {"cpu": request.cpus, "gpu": request.gpus}
    # A byte of memory: Ray wants a bundle to ask for something, and a driver that asks for CPU starves its workers.
    return tune.PlacementGroupFactory([{"memory": 1}])


def _remember(sweep: Sweep) -> None:
    """Write what the sweep is, or check that a resumed one is still the same."""
    now = {
        "experiment": sweep.experiment,
        "run": flatten(sweep.run),
        "space": sweep.space.describe(),
        "search": {k: v for k, v in flatten(sweep.search, "search.").items() if k not in EXTENDABLE},
    }
    file = sweep.folder / "sweep.json"
    if file.is_file():
        before = read_json(file, "name")
        old, new = (
            {**b["run"], **b["space"], **b["search"], "experiment": b["experiment"]}
            for b in (before, json.loads(json.dumps(now)))
        )
        changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
        require(
            not changed,
            "resume",
            f"{sweep.name} was started with other settings: "
            + "; ".join(f"{k} was {old.get(k)}, is {new.get(k)}" for k in changed[:5]),
        )
    write_text(file, json.dumps({**now, "config": to_dict(sweep.run), "hash": config_hash(sweep.run)}, indent=2))


@contextmanager
def _locked(sweep: Sweep) -> Iterator[None]:
    """One driver a sweep at a time; the lock dies with its process."""
    try:
        sweep.folder.mkdir(parents=True, exist_ok=sweep.resume)
        file = (sweep.folder / ".lock").open("w")
    except FileExistsError:  # another driver was quicker
        raise InputError(f"name: {sweep.name!r} is taken; add --resume, or choose another name") from None
    except OSError as error:
        raise InputError(f"storage: {sweep.folder} is not writable ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"name: another process is running the sweep {sweep.name!r}") from None
        yield
