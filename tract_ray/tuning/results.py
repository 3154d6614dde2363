"""What a sweep found, as rows: read from its study and its folders, or from the MLflow record."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna

from tract_ray.training import RunResult
from tract_ray.tuning.trial import trial_name

STATES = {"COMPLETE": "finished", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "running"}


@dataclass(frozen=True)
class TrialRow:
    """One trial. `distances` by mu_i are its bank's; a stopped trial has the last score it reported."""

    name: str
    status: str
    params: dict[str, Any]
    changes: dict[str, Any]
    samples: int
    distance: float | None = None
    mu_i: float | None = None
    distances: dict[float, float] = field(default_factory=dict)
    seconds: float = 0.0
    anchor: bool = False


def read_row(trial: optuna.trial.FrozenTrial, trials: Path) -> TrialRow | None:
    """The row of one trial of the study; None if it was never handed out."""
    status = STATES.get(trial.state.name)
    if status is None or "changes" not in trial.user_attrs:
        return None
    name = trial_name(trial.number)
    steps = trial.intermediate_values
    row = TrialRow(
        name=name,
        status=status,
        params=trial.params,
        changes=trial.user_attrs["changes"],
        samples=trial.user_attrs.get("samples", 0),
        distance=steps[max(steps)] if steps else None,
        anchor=bool(trial.user_attrs.get("anchor")),
    )
    file = trials / name / "result.json"
    if status != "finished" or not file.is_file():
        return row
    result = RunResult.from_json(json.loads(file.read_text()))
    return replace(
        row,
        distance=result.distance,
        mu_i=result.mu_i,
        distances=result.distances,
        seconds=result.seconds,
        samples=result.samples,
    )


def read_rows(study: optuna.Study, trials: Path) -> list[TrialRow]:
    """Rows of all trials that were handed out, in their order."""
    rows = (read_row(trial, trials) for trial in study.get_trials(deepcopy=False))
    return [row for row in rows if row is not None]


def finished(rows: list[TrialRow]) -> list[TrialRow]:
    """Finished trials, best first."""
    return sorted((r for r in rows if r.status == "finished"), key=lambda r: (r.distance, r.name))


def importances(study: optuna.Study) -> dict[str, float]:
    """FANOVA importances of the parameters over finished trials; empty where too few finished to tell."""
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(done) < 4:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
    except (ValueError, RuntimeError):  # all distances equal: nothing varies
        return {}
