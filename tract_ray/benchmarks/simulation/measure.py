"""A sweep with replayed trials through the sweep's own code, and what its driver spent."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
from mlflow import MlflowClient
from rich.console import Console

from tract_ray.analysis.plots import plots
from tract_ray.analysis.rows import TrialRow, importances
from tract_ray.benchmarks.simulation.machines import Server, machine
from tract_ray.benchmarks.simulation.replayed_trials import METRIC, Mark, Replay, pace, replay_trial
from tract_ray.benchmarks.simulation.stopwatch import Stopwatch
from tract_ray.cluster.run_on_tune import run_on_tune
from tract_ray.cluster.simulated_nodes import timed_calls
from tract_ray.cluster.tune_searcher import StudySearcher
from tract_ray.config import to_dict
from tract_ray.distillation import heuristic_mu
from tract_ray.search.space import Space, apply_changes
from tract_ray.search.study import Search
from tract_ray.sweep import driver
from tract_ray.sweep.definition import Sweep, SweepResult
from tract_ray.sweep.follower import Follower
from tract_ray.tracking import MlflowStore, Shipper
from tract_ray.tracking import shipper as shipping
from tract_ray.training import EvaluationConfig, Paths, RunConfig, Score
from tract_ray.training.recipes import method_recipe, teacher_recipe
from tract_ray.training.scoring import evaluation_marks

BANK = (0.3, 0.1, 1e-2, 1e-4, 1e-6, 1e-12)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """The space of `sweeps/mu_search.py`."""
    rate = trial.suggest_float("mu_s_rate", 1e-3, 1.0, log=True)
    residual = trial.suggest_float("mu_i_residual", 1e-6, 0.3, log=True)
    return {"method.mu_s": 1 - rate, "method.mu_i_residual": residual}


SPACE = Space(suggest, tuple({"mu_s_rate": rate, "mu_i_residual": 1e-3} for rate in (0.5, 1.0, 0.1, 0.01, 1e-3)))


def replayed_run() -> RunConfig:
    """TRACT 1024,32,1 on the digits, as the curves were measured."""
    method = method_recipe("tract", "digits", time_schedule=(1024, 32, 1))
    bank = (0.0, *(round(heuristic_mu(residual, method.phases()[-1].steps), 8) for residual in sorted(BANK)))
    method = method_recipe("tract", "digits", time_schedule=(1024, 32, 1), mu_i_bank=bank)
    return RunConfig(teacher=teacher_recipe("digits"), method=method, evaluation=EvaluationConfig())


def replay_of(run: RunConfig, seconds: float) -> Replay:
    """Marks of `run`, at which the real one is scored, too."""
    phases, marks = run.method.phases(), []
    for step in sorted(evaluation_marks(phases, run.evaluation.per_phase)):
        phase = next(p for p in phases if p.start < step <= p.end)
        progress = (step - phase.start) / phase.steps
        marks.append(Mark(step * run.method.batch, progress, phase is phases[-1], step == phases[-1].end))
    return Replay(tuple(marks), seconds, phases[-1].steps)


@dataclass
class Measured:
    """What a simulated sweep cost its driver. Seconds, unless a name says otherwise."""

    nodes: int
    rows: list[TrialRow]
    watch: Stopwatch
    search: float = 0.0
    driver_cpu: float = 0.0
    server_cpu: float = 0.0
    machine: float = 0.0
    memory_all: float = 0.0
    memory_before: float = 0.0
    memory_peak: float = 0.0
    simulated: float = 0.0
    lines: int = 0
    written: int = 0
    lags: list[tuple[int, float]] = field(default_factory=list)
    told: list[float] = field(default_factory=list)

    @property
    def utilisation(self) -> float:
        """Simulated training against the slots' time, over the whole search."""
        return self.simulated / (self.nodes * self.search)

    @property
    def steady_utilisation(self) -> float:
        """The same in the middle half of the trials: neither machines that start nor the last trials' tail."""
        first, last = len(self.told) // 4, 3 * len(self.told) // 4
        rate = (last - first) / (self.told[last] - self.told[first])
        return rate * self.simulated / len(self.rows) / self.nodes


def simulate(
    nodes: int, trials: int, seconds: float, folder: Path, server: Server, available: float, console: Console
) -> Measured:
    """Run the sweep on the cluster that this process has joined; `available` MB were free before any of it."""
    run = replayed_run()
    sweep = Sweep(
        experiment="simulation",
        question="What does the driver cost?",
        space=SPACE,
        run=run,
        name="simulation",
        search=Search(trials=trials, reduction=2, finish_anchors=True),  # as docs/scaling.md has it
        paths=Paths(folder, folder / "cache"),
        trainable=partial(replay_trial, replay=replay_of(run, seconds)),
        mlflow_uri=server.uri,
    )
    with Stopwatch() as watch:
        measured = Measured(nodes, [], watch)
        _watch_everything(watch, measured)
        before = resource.getrusage(resource.RUSAGE_SELF)
        with _replaying(measured, server, available):
            result = driver.run_sweep(sweep, console)
        after = resource.getrusage(resource.RUSAGE_SELF)
    measured.rows = result.rows
    for row in result.rows:
        lines = (sweep.folder / "trials" / row.name / "record.jsonl").read_text().splitlines()
        trained = json.loads(lines[-1])["samples"] / run.method.samples  # may be more than the study knows of
        measured.written += len(lines)
        measured.simulated += pace(to_dict(apply_changes(run, row.changes)), seconds) * trained
    measured.driver_cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    measured.memory_before, measured.memory_peak = before.ru_maxrss / 1024, after.ru_maxrss / 1024
    return measured


@contextmanager
def _replaying(measured: Measured, server: Server, available: float) -> Iterator[None]:
    """The sweep without what needs a network: its teacher, its reference rows, its pictures and its logged model."""

    def search(*args: Any, **options: Any) -> None:
        began, served, (busy, total, _) = time.perf_counter(), server.cpu(), machine()
        try:
            run_on_tune(*args, **options)
        finally:
            measured.search = time.perf_counter() - began
            now = machine()
            measured.machine, measured.memory_all = (now[0] - busy) / (now[1] - total), available - now[2]
            measured.server_cpu = server.cpu() - served

    def report(folder: Path, study: optuna.Study, result: SweepResult, *_: object) -> None:
        (folder / "plots").mkdir(exist_ok=True)
        for name, figure in plots(result.rows, METRIC, importances(study), {}).items():
            figure.savefig(folder / "plots" / f"{name}.png")

    with mock.patch.multiple(
        driver,
        train_teacher_on_cluster=lambda *_: None,
        start_references=lambda *_: [Score(METRIC, 1024, 4000, 1.66)],
        collect=lambda scores: scores,
        write_report=report,
        best_student=lambda row, run, trials, paths: trials / row.name,  # a replayed run has none
        publish=lambda *_: "",
        run_on_tune=search,
    ):
        yield


def _watch_everything(watch: Stopwatch, measured: Measured) -> None:
    def told(*_: Any) -> None:
        watch.stage += 1
        measured.told.append(time.perf_counter())

    def shipped(store: MlflowStore, run_id: str, lines: Any, folder: Path) -> None:
        measured.lines += len(lines)
        measured.lags.append((watch.stage, time.time() - lines[0]["time"]))

    for owner, method, group, what in timed_calls():
        watch.time(owner, method, group, what)
    watch.time(StudySearcher, "suggest", "Tune", "  searcher: suggest")
    watch.time(StudySearcher, "on_trial_result", "Tune", "  searcher: a report")
    watch.time(StudySearcher, "should_stop", "Tune", "  searcher: stop?")
    watch.time(StudySearcher, "on_trial_complete", "Tune", "  searcher: an end")
    watch.time(optuna.Study, "ask", "Optuna", "ask")
    watch.time(optuna.Trial, "_suggest", "Optuna", "a parameter (TPE)")
    watch.time(optuna.Trial, "set_user_attr", "Optuna", "an attribute")
    watch.time(optuna.Trial, "report", "Optuna", "report")
    watch.time(optuna.Trial, "should_prune", "Optuna", "prune?")
    watch.time(optuna.Study, "tell", "Optuna", "tell", told)
    watch.time(optuna.Study, "get_trials", "Optuna", "all trials")
    watch.time(Follower, "close", "close", "shipping what is left")
    watch.time(Shipper, "_pass", "MLflow", "shipper: one pass")
    watch.time(shipping, "read_lines", "MLflow", "  reading a record")
    watch.time(MlflowStore, "trial_run", "MLflow", "  a run: find or make")
    watch.time(MlflowStore, "log_lines", "MLflow", "  lines of a run", shipped)
    watch.time(MlflowClient, "log_batch", "MLflow", "    log_batch")
    watch.time(MlflowClient, "log_image", "MLflow", "    log_image")
    watch.time(MlflowStore, "log_values", "MLflow", "  closing values")
    watch.time(MlflowStore, "close", "MLflow", "  ending a run")
