"""What a sweep found, as rows: read from its study and its folders, or from the MLflow record."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from tract_ray.search.space import ROW
from tract_ray.search.study import ANCHOR, CHANGES, COSTS
from tract_ray.search.trial_name import trial_name
from tract_ray.training import RunResult

STATES = {"COMPLETE": "finished", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "running"}

PASSED_ON = "passed on"  # a member of a population, before its last part


@dataclass(frozen=True)
class TrialRow:
    """One trial. With several seeds, `distance` and `distances` (by mu_i) are means and `seeds` has each one's.

    A stopped trial has the last score it reported. `samples` are those of one seed; `costs` by seed are what it saw
    (`samples`), what it `trained` itself, and its `device_seconds`.
    """

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
    seeds: tuple[float, ...] = ()
    parameters: int = 0
    costs: tuple[dict[str, float], ...] = ()

    @property
    def label(self) -> str:
        """The row's own name where it has one (`rows`), else the trial's."""
        return str(self.params.get(ROW, self.name))


def read_row(trial: optuna.trial.FrozenTrial, trials: Path) -> TrialRow | None:
    """The row of one trial of the study; None if it was never handed out."""
    status = STATES.get(trial.state.name)
    if status is None or CHANGES not in trial.user_attrs:
        return None
    name = trial_name(trial.number)
    steps, costs = trial.intermediate_values, trial.user_attrs.get(COSTS, {})
    row = TrialRow(
        name=name,
        status=status,
        params=trial.params,
        changes=trial.user_attrs[CHANGES],
        samples=int(costs.get("0", {}).get("samples", 0)),
        distance=trial.values[0] if trial.values else (steps[max(steps)] if steps else None),
        anchor=bool(trial.user_attrs.get(ANCHOR)),
        costs=tuple(costs.values()),
    )
    if status != "finished":
        return row
    parts = len(row.changes.get("method.mu_s_path", ()))
    if 0 < row.changes.get("parts", 0) < parts:
        row = replace(row, status=PASSED_ON)  # its scores are of a run half done
    results: list[RunResult] = []
    while (file := trials / trial_name(trial.number, len(results)) / "result.json").is_file():
        results.append(RunResult.from_json(json.loads(file.read_text())))
    return replace(row, **pooled(results)) if results else row


def pooled(results: list[RunResult]) -> dict[str, Any]:
    """One row's numbers from its seeds': unless it is the runs' own, mu_i is the best in the mean, not each seed's."""
    first = results[0]
    shared = [mu for mu in first.distances if all(mu in r.distances for r in results)]
    distances = {mu: float(np.mean([r.distances[mu] for r in results])) for mu in shared}
    mu = first.mu_i if first.select == "own" or not distances else min(distances, key=distances.__getitem__)
    return {
        "distance": distances.get(mu, first.distance),
        "mu_i": mu,
        "distances": distances,
        "seconds": sum(r.seconds for r in results),
        "samples": first.samples,
        "seeds": tuple(r.distances.get(mu, r.distance) for r in results),
        "parameters": first.parameters,
    }


def read_rows(study: optuna.Study, trials: Path) -> list[TrialRow]:
    """Rows of all trials that were handed out, in their order; an earlier sweep's that warmed it up are not."""
    rows = (read_row(trial, trials) for trial in study.get_trials(deepcopy=False))
    return [row for row in rows if row is not None]


def finished(rows: list[TrialRow]) -> list[TrialRow]:
    """Finished trials, best first."""
    return sorted((r for r in rows if r.status == "finished"), key=lambda r: (r.distance, r.name))


def objectives(row: TrialRow) -> tuple[float, float]:
    """What a Pareto front is of: the distance and the number of parameters of a finished trial."""
    return float(row.distance or 0), float(row.parameters)


def importances(study: optuna.Study) -> dict[str, float]:
    """FANOVA importances of the parameters for the distance over finished trials; empty where too few finished."""
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(done) < 4 or all(ROW in trial.params for trial in done):  # a list has no parameters to compare
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, target=lambda t: t.values[0]))
    except (ValueError, RuntimeError):  # all distances equal: nothing varies
        return {}


def describe(params: dict[str, Any], changes: dict[str, Any]) -> str:
    """`mu_s 0.5  mu_i_residual 0.001`; a named row by its name."""
    if ROW in params:
        return str(params[ROW])
    return "  ".join(f"{k.rpartition('.')[2]} {short(v)}" for k, v in changes.items())


def short(value: Any) -> str:
    """A changed setting in a table."""
    if isinstance(value, dict):
        settings = value.get("options", {}).items()
        return " ".join([str(value.get("kind") or value.get("name") or "…"), *(f"{k}={short(v)}" for k, v in settings)])
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in value)
    return f"{value:.5g}" if isinstance(value, float) else str(value)
