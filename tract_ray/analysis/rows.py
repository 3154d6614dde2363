"""What a sweep found, as rows: read from its study and its folders, or from the MLflow record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from tract_ray.files import read_json
from tract_ray.search.seeds import pooled
from tract_ray.search.space import ROW
from tract_ray.search.study import ANCHOR, CHANGES, COSTS, CUT, FAILED
from tract_ray.search.trial_name import trial_name
from tract_ray.training import RunResult, load_model
from tract_ray.training.result import RESULT
from tract_ray.training.scoring import BEST_BANK

STATES = {"COMPLETE": "finished", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "running"}

POOLED = Path("pooled", "student")  # below a trial: made of a stage, where the first seed's own mu_i is another
PASSED_ON = "passed on"  # a member of a population, before its last part
CUT_SHORT = "cut short"  # by the budget: a larger one continues it


@dataclass(frozen=True)
class TrialRow:
    """One trial. With several seeds, `distance` and `distances` (by mu_i) are means; `seeds` has each one's distance.

    All are of the one `mu_i` that is best in the mean. What chooses, among averages and among trials, is another set of
    noise than that of `distance` and `seeds`: on it `distances` are measured, and `selection`, the one of `mu_i`, is
    what the study is told.

    A stopped trial has the last score it reported. `samples` are those of one seed; `costs` by seed are what it saw
    (`samples`), what it `trained` itself, and its `device_seconds`. `reason` says why it failed.
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
    reason: str = ""
    selection: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data: what `summary.json` holds, in the sweep's folder and in MLflow."""
        return {**asdict(self), "distances": {repr(mu): distance for mu, distance in self.distances.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialRow:
        """The inverse of `to_json`."""
        distances = {float(mu): distance for mu, distance in data["distances"].items()}
        lists = {name: tuple(data[name]) for name in ("seeds", "costs")}
        return cls(**{**data, **lists, "distances": distances})

    @property
    def number(self) -> int:
        """The trial's number."""
        return int(self.name.removeprefix("trial-"))

    @property
    def chosen_by(self) -> float:
        """What trials are compared by; NaN of one without any score."""
        known = (self.selection, self.distance)
        return next((float(value) for value in known if value is not None), math.nan)

    @property
    def label(self) -> str:
        """The row's own name where it has one (`rows`), else the trial's."""
        return str(self.params.get(ROW, self.name))


def status_of(trial: optuna.Trial | optuna.trial.FrozenTrial, state: TrialState, cut: bool = False) -> str:
    """What is said of a trial of which a run has ended in `state`: a word of `STATES` or one of those above."""
    if state == TrialState.COMPLETE:
        changes = trial.user_attrs.get(CHANGES, {})
        parts = len(changes.get("method.mu_s_path", ()))
        return PASSED_ON if 0 < changes.get("parts", 0) < parts else STATES[state.name]
    if state == TrialState.RUNNING and trial.user_attrs.get(FAILED):
        return STATES["FAIL"]
    return CUT_SHORT if cut else STATES.get(state.name, "")


def read_row(trial: optuna.trial.FrozenTrial, trials: Path) -> TrialRow | None:
    """The row of one trial of the study; None if it was never handed out.

    A trial that the budget cut is finished with the seeds that came to their end, if there are any.
    """
    attributes = trial.user_attrs
    costs, cut = attributes.get(COSTS, {}), bool(attributes.get(CUT))
    status = status_of(trial, trial.state, cut)
    if not status or CHANGES not in attributes or (cut and not costs):
        return None
    steps = trial.intermediate_values
    row = TrialRow(
        name=trial_name(trial.number),
        status=status,
        params=trial.params,
        changes=attributes[CHANGES],
        samples=int(costs.get("0", {}).get("samples", 0)),
        distance=trial.values[0] if trial.values else (steps[max(steps)] if steps else None),
        anchor=bool(attributes.get(ANCHOR)),
        costs=tuple(costs.values()),
        reason=attributes.get(FAILED, "") if status == "failed" else "",
    )
    if status not in ("finished", CUT_SHORT, PASSED_ON):
        return row
    results: list[RunResult] = []
    while (file := trials / trial_name(trial.number, len(results)) / RESULT).exists():
        results.append(RunResult.from_json(read_json(file, "result")))
    if not results:
        return row
    found, first = pooled([result.to_json() for result in results], results[0].select), results[0]
    return replace(
        row,
        **asdict(found),
        status=status_of(trial, TrialState.COMPLETE),
        seconds=sum(result.seconds for result in results),
        samples=first.samples,
        parameters=first.parameters,
    )


def student_of(row: TrialRow, trials: Path) -> Path | None:
    """The folder of the student that `row` is about: its first seed's, with the row's mu_i; None if that is not kept.

    The first seed's and not the best one's: a row is no better than its seeds are in the mean.
    """
    run = trials / row.name
    for folder in (run / "student", run / BEST_BANK / repr(row.mu_i), run / POOLED):
        if folder.is_dir() and (row.mu_i is None or load_model(folder).about.get("mu_i") == row.mu_i):
            return folder
    return None


def read_rows(study: optuna.Study, trials: Path) -> list[TrialRow]:
    """Rows of all trials that were handed out, in their order; an earlier sweep's that warmed it up are not."""
    rows = (read_row(trial, trials) for trial in study.get_trials(deepcopy=False))
    return [row for row in rows if row is not None]


def finished(rows: list[TrialRow]) -> list[TrialRow]:
    """Finished trials, best first: by what chooses, so that the first one's `distance` is of noise that did not."""
    return sorted((r for r in rows if r.status == "finished"), key=lambda r: (r.chosen_by, r.name))


def objectives(row: TrialRow) -> tuple[float, float]:
    """What a Pareto front is chosen by: the distance and the number of parameters of a finished trial."""
    return row.chosen_by, float(row.parameters)


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
