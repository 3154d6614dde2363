"""A sweep: a teacher, trials on Ray that Optuna chooses, a record in MLflow, and a table at the end."""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console

from tract_ray.config import InputError, config_hash, flatten, require, to_dict
from tract_ray.files import read_json, write_text
from tract_ray.terminal import Progress, duration
from tract_ray.tracking import MlflowStore, Shipper, check_reachable, provenance, ui_command
from tract_ray.training import (
    Paths,
    RunConfig,
    Score,
    find_teacher,
    run_parameters,
    score_teacher,
    teacher_folder,
    train_teacher,
)
from tract_ray.tuning.report import show_result, write_report
from tract_ray.tuning.resources import Request, check_address, check_fits, connect, stale_placement_groups, trial_device
from tract_ray.tuning.results import STATES, TrialRow, finished, read_rows
from tract_ray.tuning.space import Space, apply_changes
from tract_ray.tuning.study import StudyScheduler, StudySearcher, open_study
from tract_ray.tuning.trial import run_trial, trial_name

MLFLOW_STATUS = {"finished": "FINISHED", "stopped early": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep script hands over. `question` is the sentence it asks; `run` is what every trial starts from."""

    experiment: str
    question: str
    space: Space
    run: RunConfig
    name: str
    trials: int = 12
    request: Request = field(default_factory=Request)
    concurrency: int = 0
    seed: int = 0
    early_stopping: bool = True
    resume: bool = False
    paths: Paths
    mlflow_uri: str
    ray_address: str | None = None
    reference_steps: tuple[int, ...] = (1024, 32, 1)

    def __post_init__(self) -> None:
        require(self.trials >= 1, "trials", f"must be at least 1, got {self.trials}")
        require(
            bool(re.fullmatch(r"\w[\w.-]*", self.name)), "name", f"{self.name!r} has more than letters, digits and ._-"
        )
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
        find_teacher(sweep.run.teacher, sweep.paths)
        check_reachable(sweep.mlflow_uri)
        check_address(sweep.ray_address)
        console.print(f"{sweep.name}: {sweep.question}")
        cluster = connect(sweep.ray_address)
        slots = check_fits(sweep.request)
        store = MlflowStore(sweep.mlflow_uri, sweep.experiment)
        if not sweep.resume:
            ours.enter_context(_locked(sweep))
            _remember(sweep)
        concurrency = min(slots, sweep.concurrency or slots, sweep.trials)
        stale = stale_placement_groups()
        if stale:
            console.print(f"note: {stale} placement groups of other jobs hold resources; trials queue behind them")
        console.print(f"{cluster}: up to {concurrency} trials at once, {sweep.request.describe()} each")
        train_teacher_on_cluster(sweep, console)
        reference = _start_references(sweep)
        about = {**provenance(), "device": trial_device(sweep.request)}
        search = {"seed": sweep.seed, "trials": sweep.trials, "sweep": sweep.name}
        parent = store.sweep_run(sweep.name, {**run_parameters(sweep.run), **about, **search}, sweep.question)
        try:
            return _search(sweep, store, parent, about, concurrency, reference, console)
        except BaseException as error:
            with suppress(Exception):  # the record must not hide what went wrong
                store.close(parent, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise


def _search(
    sweep: Sweep,
    store: MlflowStore,
    parent: str,
    about: dict[str, str],
    concurrency: int,
    reference: Any,
    console: Console,
) -> SweepResult:
    """All trials, then the report, to the sweep's folder, to MLflow and to the console."""
    import ray

    study = open_study(sweep.folder / "study.db", sweep.name, sweep.space, seed=sweep.seed, trials=sweep.trials)
    trouble = _run_trials(sweep, study, Shipper(store, sweep.name, parent), about, concurrency, console)
    rows = read_rows(study, sweep.folder / "trials")
    failed = [row.name for row in rows if row.status == "failed"]
    result = SweepResult(sweep.name, rows, ray.get(reference), parent, failed)
    if finished(rows):
        write_report(sweep.folder, study, result)
        _publish(sweep, store, result, console)
    with suppress(Exception):  # `_publish` has said that MLflow is away
        store.close(parent, "FAILED" if failed else "FINISHED")
    show_result(result, sweep.question, console)
    if trouble:
        console.print(f"note: part of the record is not in MLflow ({trouble}); --resume sends it")
    console.print(f"\nCompare the trials:  {ui_command(sweep.mlflow_uri)}")
    return result


def _run_trials(
    sweep: Sweep, study: optuna.Study, shipper: Shipper, about: dict[str, str], concurrency: int, console: Console
) -> str:
    """Hand the study's trials to Tune until `sweep.trials` have ended; returns what kept the record out of MLflow."""
    from ray import tune

    length = sweep.run.method.samples
    trials = sweep.folder / "trials"
    best: dict[str, float] = {}
    with Progress(sweep.experiment.replace("_", " "), length * sweep.trials, console.file) as progress:
        shipper.listener = lambda trial, line: progress.update(trial, line["samples"])
        shipper.start()

        def started(number: int, run: RunConfig) -> None:
            shipper.watch(trial_name(number), trials / trial_name(number), {**run_parameters(run), **about})

        def ended(number: int, state: optuna.trial.TrialState, result: dict[str, Any]) -> None:
            name, seen = trial_name(number), int(result.get("samples", 0))
            status = STATES[state.name]
            values = {"distance": result["distance"], "mu_i_best": result["mu_i"]} if "distance" in result else {}
            shipper.end(name, MLFLOW_STATUS[status], values, {"tract_ray.status": status})
            if status == "finished":
                best[name] = result["distance"]
            else:
                progress.skip(length - seen)
            params = "  ".join(
                f"{k.rpartition('.')[2]} {v:.5g}" for k, v in study.trials[number].user_attrs["changes"].items()
            )
            score = f"{result['distance']:8.3f}" if "distance" in result else "       -"
            leader = f"best {min(best.values()):.3f} ({min(best, key=best.__getitem__)})" if best else ""
            progress.update(name, seen, leader)
            progress.say(
                f"{name}  {status:<13}  {score}  {params}" + (f"  ({seen:,} images)" if status != "finished" else "")
            )

        # After an interruption: trials that had ended may still have lines that MLflow has not.
        for row in read_rows(study, trials):
            if row.status in MLFLOW_STATUS:
                started(int(row.name.rpartition("-")[2]), apply_changes(sweep.run, row.changes))
                values = {"distance": row.distance} if row.distance is not None else {}
                shipper.end(row.name, MLFLOW_STATUS[row.status], values, {"tract_ray.status": row.status})
                if row.status == "finished" and row.distance is not None:
                    best[row.name] = row.distance
                else:
                    progress.skip(length - row.samples)
        searcher = StudySearcher(study, sweep.space, sweep.run, sweep.trials, started, ended)
        remaining = searcher.remaining() + len(searcher.again)
        if remaining:
            attempt = 1 + sum(1 for _ in (sweep.folder / "tune").glob("attempt-*"))
            tuner = tune.Tuner(
                tune.with_resources(run_trial, _resources(sweep.request)),
                param_space={
                    "folder": str(trials),
                    "paths": {
                        "storage": str(sweep.paths.storage),
                        "cache": str(sweep.paths.cache),
                        "data_root": sweep.paths.data_root,
                    },
                    "workers": sweep.request.workers,
                    "cpus": sweep.request.cpus,
                    "gpus": sweep.request.gpus,
                },
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=StudyScheduler(searcher) if sweep.early_stopping else None,
                    num_samples=remaining,
                    max_concurrent_trials=concurrency,
                    reuse_actors=sweep.request.workers == 1,
                ),
                run_config=tune.RunConfig(
                    name=f"attempt-{attempt:03d}",
                    storage_path=str(sweep.folder / "tune"),
                    failure_config=tune.FailureConfig(max_failures=1),
                    verbose=0,
                ),
            )
            try:
                tuner.fit()
            finally:
                for name in shipper.open_trials():
                    shipper.end(name, "KILLED", {}, {"tract_ray.status": "interrupted"})
                sent = shipper.close()
        else:
            sent = shipper.close()
        return "" if sent else shipper.trouble or "it was too slow"


def _resources(request: Request) -> Any:
    """One worker: the trial's own actor computes. Several: the actor only drives, and must not hold their CPUs."""
    from ray import tune

    if request.workers == 1:
        return {"cpu": request.cpus, "gpu": request.gpus}
    # A byte of memory: Ray wants a bundle to ask for something, and a driver that asks for CPU starves its workers.
    return tune.PlacementGroupFactory([{"memory": 1}])


def train_teacher_on_cluster(sweep: Sweep, console: Console) -> None:
    """Train the teacher on one machine of the cluster, if the cache lacks it; its record tells how far it is."""
    import ray

    teacher, training = sweep.run.teacher, sweep.run.teacher.training
    folder = teacher_folder(teacher, sweep.paths)
    if find_teacher(teacher, sweep.paths) is not None:
        console.print(f"teacher: found in {folder}")
        return
    gpus = min(sweep.request.gpus, 1)
    task = ray.remote(num_cpus=sweep.request.cpus, num_gpus=gpus)(_train_teacher)
    pending = task.remote(teacher, sweep.paths, sweep.request.cpus, gpus)
    record = folder.with_name(folder.name + ".training") / "record.jsonl"
    with Progress("teacher", training.samples, console.file) as progress:
        started = time.monotonic()
        while not ray.wait([pending], timeout=1.0)[0]:
            if record.is_file() and (lines := record.read_text().splitlines()):
                try:
                    last = json.loads(lines[-1])
                except json.JSONDecodeError:
                    continue
                progress.update("teacher", last["samples"], f"loss {last['metrics']['loss']:.4f}")
        ray.get(pending)
    console.print(f"teacher: trained in {duration(time.monotonic() - started)}, kept in {folder}")


def _train_teacher(teacher: Any, paths: Paths, cpus: int, gpus: int) -> None:
    import torch

    from tract_ray.training import Worker, default_device

    torch.set_num_threads(cpus)
    train_teacher(teacher, paths, Worker(device=default_device() if gpus else torch.device("cpu")))


def _score_references(run: RunConfig, paths: Paths, steps: list[int], cpus: int, gpus: int) -> list[Score]:
    import torch

    from tract_ray.training import Worker, default_device

    torch.set_num_threads(cpus)
    worker = Worker(device=default_device() if gpus else torch.device("cpu"))
    return [score_teacher(run.teacher, run.evaluation, paths, count, worker) for count in steps]


def _start_references(sweep: Sweep) -> Any:
    """Reference rows (the teacher at several numbers of steps; 0 is the noise floor), computed beside the trials.

    One task: it keeps one slot from the trials, and imports everything once.
    """
    import ray

    cpus, gpus = sweep.request.cpus, min(sweep.request.gpus, 1)
    task = ray.remote(num_cpus=cpus, num_gpus=gpus)(_score_references)
    return task.remote(sweep.run, sweep.paths, [*sweep.reference_steps, 0], cpus, gpus)


def _remember(sweep: Sweep) -> None:
    """Write what the sweep is, or check that a resumed one is still the same."""
    now = {
        "experiment": sweep.experiment,
        "run": flatten(sweep.run),
        "space": sweep.space.describe(),
        "seed": sweep.seed,
    }
    file = sweep.folder / "sweep.json"
    if file.is_file():
        before = read_json(file, "name")
        old, new = (
            {**b["run"], **b["space"], "experiment": b["experiment"], "seed": b["seed"]}
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


def _publish(sweep: Sweep, store: MlflowStore, result: SweepResult, console: Console) -> None:
    """The summary, the plots and the best student to MLflow."""
    best = finished(result.rows)[0]
    try:
        store.log_files(
            result.parent_run, [sweep.folder / "summary.json", *sorted((sweep.folder / "plots").glob("*.png"))]
        )
        table = [
            {
                "trial": r.name,
                "status": r.status,
                "distance": r.distance,
                "mu_i": r.mu_i,
                "images": r.samples,
                **r.changes,
            }
            for r in result.rows
        ]
        store.log_table(result.parent_run, table, "trials.json")
        store.log_values(
            result.parent_run,
            {
                "distance": best.distance or 0.0,
                **{f"teacher/{s.steps}_steps": s.distance for s in result.reference if s.steps},
            },
            {"tract_ray.best_trial": best.name},
        )
        student = sweep.folder / "trials" / best.name / "student"
        run_id = store.trial_run(sweep.name, best.name, result.parent_run, {})
        store.log_files(run_id, [student])
        store.log_student(run_id, student)
        store.close(run_id)
    except Exception as error:  # whatever MLflow raises: the files are still there
        console.print(
            f"note: the summary could not be sent to MLflow ({str(error).splitlines()[0]}); it is in {sweep.folder}"
        )
