"""Follows the trials of a running sweep: their records to MLflow, their progress to the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

from tract_ray.terminal import Progress
from tract_ray.tracking import Shipper
from tract_ray.training import RunConfig, run_parameters
from tract_ray.tuning.results import TrialRow, finished, read_row, read_rows
from tract_ray.tuning.space import apply_changes
from tract_ray.tuning.trial import trial_name

MLFLOW_STATUS = {"finished": "FINISHED", "stopped early": "KILLED", "failed": "FAILED"}


class Follower:
    """Hears from the searcher when a trial starts and ends, and from the shipper how far each is."""

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
        self.best: TrialRow | None = None
        self.shipper = shipper
        shipper.listener = lambda trial, line: progress.update(trial, line["samples"])
        shipper.start()

    def catch_up(self) -> None:
        """After an interruption: trials that had ended may still have lines that MLflow lacks."""
        for row in read_rows(self.study, self.trials):
            if row.status in MLFLOW_STATUS:
                self._watch(row.name, apply_changes(self.run, row.changes))
                self._end(row)

    def started(self, number: int, run: RunConfig) -> None:
        """Trial `number` was handed to the cluster."""
        self._watch(trial_name(number), run)

    def ended(self, number: int, state: optuna.trial.TrialState, result: dict[str, Any]) -> None:
        """Trial `number` ended: a line that stays, and the end of its MLflow run."""
        row = read_row(self.study.trials[number], self.trials)
        assert row is not None
        self._end(row)
        params = "  ".join(f"{k.rpartition('.')[2]} {v:.5g}" for k, v in row.changes.items())
        final = row.status == "finished" and row.distance is not None
        score = f"{row.distance:8.3f}" if final else "       -"
        after = "" if row.status == "finished" else f"  after {row.samples:,} images"
        self.progress.say(f"{row.name}  {row.status:<13}  {score}  {params}{after}")

    def close(self) -> str:
        """Ship what is left; returns what kept part of the record out of MLflow, or nothing."""
        for name in self.shipper.open_trials():
            self.shipper.end(name, "KILLED", {}, {"tract_ray.status": "interrupted"})
        return "" if self.shipper.close() else self.shipper.trouble or "it was too slow"

    def _watch(self, name: str, run: RunConfig) -> None:
        self.shipper.watch(name, self.trials / name, {**run_parameters(run), **self.about})

    def _end(self, row: TrialRow) -> None:
        scores = {"distance": row.distance, "samples": row.samples, "seconds": row.seconds}
        values = {key: float(value) for key, value in scores.items() if value is not None}
        tags = {"status": row.status, "anchor": str(row.anchor).lower(), "changed": ",".join(row.changes)}
        self.shipper.end(row.name, MLFLOW_STATUS[row.status], values, {f"tract_ray.{k}": v for k, v in tags.items()})
        whole = self.run.method.samples
        if row.status == "finished":
            self.progress.update(row.name, whole)
        else:
            self.progress.skip(whole - row.samples)
        if row.status == "finished":
            self.best = finished([row, self.best] if self.best else [row])[0]
        leader = f"best {self.best.distance:.3f} ({self.best.name})" if self.best else ""
        self.progress.update(row.name, row.samples, leader)
