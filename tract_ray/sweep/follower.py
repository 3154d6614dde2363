"""Follows the trials of a running sweep: their records to MLflow, their progress to the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from tract_ray.analysis.rows import CUT_SHORT, PASSED_ON, describe, read_rows, status_of
from tract_ray.search.jobs import Job
from tract_ray.search.space import apply_changes
from tract_ray.search.study import ANCHOR, CHANGES, FAILED
from tract_ray.search.trial_name import trial_name
from tract_ray.terminal import Progress
from tract_ray.tracking import Shipper
from tract_ray.training import RunConfig, run_parameters
from tract_ray.training.notes import read_notes

MAX_TAG = 5000  # characters that every server takes
MLFLOW_STATUS = {
    "finished": "FINISHED",
    "stopped early": "KILLED",
    "failed": "FAILED",
    PASSED_ON: "FINISHED",
    CUT_SHORT: "KILLED",
}


class Follower:
    """Hears from the searcher when a run starts and ends, and from the shipper how far each is."""

    def __init__(
        self,
        study: optuna.Study,
        trials: Path,
        run: RunConfig,
        shipper: Shipper,
        about: dict[str, str],
        progress: Progress,
    ) -> None:
        """`about` is what every trial's parameters say beside its configuration."""
        self.study, self.trials, self.run, self.about, self.progress = study, trials, run, about, progress
        self.best: tuple[float, float, str] | None = None  # what it is chosen by, what is shown of it, its name
        self.said: dict[str, int] = {}  # notes of runs that a person has seen
        self.expect: Callable[[], int] | None = None  # images that all runs will have seen in the end
        self.shipper = shipper
        shipper.listener = lambda trial, line: progress.update(trial, line["samples"])
        shipper.start()

    def catch_up(self) -> None:
        """After an interruption: trials that had ended may still have lines that MLflow lacks."""
        states = {trial.number: trial.state for trial in self.study.get_trials(deepcopy=False)}
        for row in read_rows(self.study, self.trials):
            for repeat in range(max(1, len(row.costs))) if states[row.number].is_finished() else ():
                name = trial_name(row.number, repeat)
                if not (self.trials / name / "config.json").exists():
                    continue  # it failed before it began
                first = apply_changes(self.run, row.changes)
                run = replace(first, seed=first.seed + repeat)
                self._watch(name, run)
                distance = row.seeds[repeat] if repeat < len(row.seeds) else row.distance
                cost = row.costs[repeat] if repeat < len(row.costs) else {"samples": float(row.samples)}
                selection = row.selection if row.selection is not None else distance
                self._end(name, run, row.status, distance, selection, cost, row.changes, row.anchor, row.reason)

    def started(self, job: Job) -> None:
        """A run was handed to the cluster."""
        self._watch(job.name, job.run)
        self.said[job.name] = len(read_notes(self.trials / job.name))
        self._expect()

    def ended(self, job: Job, state: TrialState, result: dict[str, Any]) -> None:
        """A run ended: a line that stays, and the end of its MLflow run."""
        status, changes = status_of(job.trial, state, job.cut), job.trial.user_attrs[CHANGES]
        distance, seen = result.get("distance"), int(result.get("samples", job.cost["samples"]))
        reason = str(result.get("failed") or job.trial.user_attrs.get(FAILED, "")) if status == "failed" else ""
        anchor = bool(job.trial.user_attrs.get(ANCHOR))
        cost = {"samples": float(seen), **job.cost}
        selection = result.get("selection", distance)
        self._end(job.name, job.run, status, distance, selection, cost, changes, anchor, reason)
        params = describe(job.trial.params, changes)
        score = f"{distance:8.3f}" if status == "finished" and distance is not None else "       -"
        after = "" if status == "finished" else f"  after {seen:,} images"
        shared = int(seen - cost.get("trained", seen))
        after += f"  ({shared:,} images shared)" if shared else ""
        after += f"  {reason}" if reason else ""
        self.progress.say(f"{job.name}  {status:<13}  {score}  {params}{after}")
        for line in read_notes(self.trials / job.name)[self.said.get(job.name, 0) :]:
            self.progress.say(f"{job.name}  note: {line}")

    def retried(self, job: Job, seconds: float) -> None:
        """A machine failed a run, which is begun again."""
        self.progress.say(f"{job.name}  its machine failed; it goes on in {seconds:g} s")

    def close(self, deadline: float = 30.0) -> str:
        """Ship what is left, until nothing moves for `deadline` seconds; returns what kept it from MLflow, or ""."""
        for name in self.shipper.open_trials():
            self.shipper.end(name, "KILLED", {}, {"tract_ray.status": "interrupted"})
        self._expect()
        return "" if self.shipper.close(deadline) else self.shipper.trouble or "it was too slow"

    def _watch(self, name: str, run: RunConfig) -> None:
        self.shipper.watch(name, self.trials / name, {**run_parameters(run), **self.about})

    def _end(
        self,
        name: str,
        run: RunConfig,
        status: str,
        distance: float | None,
        selection: float | None,
        cost: dict[str, float],
        changes: dict[str, Any],
        anchor: bool,
        reason: str = "",
    ) -> None:
        seen = int(cost.get("samples", 0))
        # A stopped trial's last score may be of more steps, and smaller than any finished one's.
        values = {"distance": distance if status == "finished" else None, **cost}
        tags = {"status": status, "anchor": str(anchor).lower(), "changed": ",".join(changes), "seed": str(run.seed)}
        tags |= {"reason": reason} if reason else {}
        notes = read_notes(self.trials / name)
        tags |= {"notes": "\n".join(notes)[:MAX_TAG]} if notes else {}
        self.shipper.end(
            name,
            MLFLOW_STATUS[status],
            {key: float(value) for key, value in values.items() if value is not None},
            {f"tract_ray.{key}": value for key, value in tags.items()},
        )
        self._expect()
        if status == "finished" and distance is not None and selection is not None:
            self.best = min([(selection, distance, name), *([self.best] if self.best else [])])
        leader = f"best {self.best[1]:.3f} ({self.best[2]})" if self.best else ""
        self.progress.update(name, seen, leader)

    def _expect(self) -> None:
        """The total of the progress: what the account foresees now."""
        if self.expect:
            self.progress.total = max(1, self.expect())
