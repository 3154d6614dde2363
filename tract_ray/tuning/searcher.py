"""What Tune asks: which run is next, and which is to be stopped. The answers come from the study."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tract_ray.config import to_dict
from tract_ray.training import RunConfig
from tract_ray.training.stages import Stage, StageStore, stages_of
from tract_ray.tuning.space import Space, apply_changes
from tract_ray.tuning.study import ANCHOR, CHANGES, COSTS, Search, rungs
from tract_ray.tuning.trial import trial_name
from tract_ray.tuning.warm_start import own_trials

AHEAD = 4  # configurations that may wait for a stage while others are drawn


@dataclass
class Job:
    """One run of a trial: its `repeat`-th seed. `promised` are the images that it will train at most."""

    trial: optuna.Trial
    repeat: int
    run: RunConfig
    stages: list[Stage] = field(default_factory=list)
    promised: int = 0
    cost: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`trial-0007`, its further seeds `trial-0007.1`, …: folder and MLflow run."""
        return trial_name(self.trial.number, self.repeat)


class StudySearcher(Searcher):  # type: ignore[misc]
    """Hands the study's trials to Tune. `on_start(job)` and `on_end(job, state, result)` follow what happens."""

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        run: RunConfig,
        search: Search,
        on_start: Callable[[Job], None],
        on_end: Callable[[Job, TrialState, dict[str, Any]], None],
        store: StageStore | None = None,
    ) -> None:
        """`store` tells which stages exist: a run waits while another trains what it needs."""
        super().__init__(metric="distance", mode="min")
        self.study, self.space, self.run, self.search, self.store = study, space, run, search, store
        self.on_start, self.on_end = on_start, on_end
        self.live: dict[str, Job] = {}
        self.waiting: list[Job] = []
        self.results: dict[int, list[dict[str, Any]]] = {}
        known = own_trials(study)
        # Handed out by an earlier driver and never ended: they come first.
        self.again = [t for t in known if t.state == TrialState.RUNNING]
        self.handed = sum(t.state.is_finished() for t in known)
        self.spent = _spent(known)

    def remaining(self) -> int:
        """New configurations that are still to be drawn."""
        return max(0, self.search.trials - self.handed - len(self.again))

    def todo(self) -> int:
        """Trials that have not ended."""
        return self.remaining() + len(self.again)

    # What Tune asks

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Tune's question: the configuration of one more run; None to ask again later."""
        job = self._next()
        if job is None:
            finished: str = Searcher.FINISHED
            return None if self.live else finished
        self.live[trial_id] = job
        self.on_start(job)
        return {
            "number": job.trial.number,
            "repeat": job.repeat,
            "run": json.dumps(to_dict(job.run)),
            "total": job.run.method.samples,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the cost so far, and what successive halving compares: the score at this rung, of the first seed."""
        job, seen = self.live[trial_id], result["samples"]
        if all(result.get(name) == job.cost.get(name) for name in ("samples", "trained")):
            return  # heard already
        places = rungs(job.run)
        if seen in places and not job.repeat and self.search.stops:
            rung = self.search.reduction ** places.index(seen)
            # A restarted trial passes its rungs again; the first report stands.
            if rung not in self.study._storage.get_trial(job.trial._trial_id).intermediate_values:
                job.trial.report(result["distance"], rung)
        self._keep_cost(job, result)  # last: whoever resumes knows by it what was heard

    def should_stop(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the pruner gives the trial up, or the budget is spent. Anchors may be exempt from the pruner."""
        job = self.live.get(trial_id)
        if job is None or result.get("finished"):
            return False
        if self.search.budget and self.search.budget.exhausted(self.spent_seconds()):
            return True
        if job.repeat or not self.search.stops or result["samples"] not in rungs(job.run):
            return False
        exempt = self.search.finish_anchors and job.trial.user_attrs.get(ANCHOR)
        return bool(job.trial.should_prune() and not exempt)  # asked in any case: the exempt compete, too

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how the run ended. A stopped trial is PRUNED: its last score is not its final one."""
        job = self.live.pop(trial_id, None)
        if job is None:
            return
        result = result or {}
        if error or "distance" not in result:
            state = TrialState.FAIL
        elif result.get("finished"):
            state = TrialState.COMPLETE
        else:
            state = TrialState.PRUNED
        if "samples" in result:
            self._keep_cost(job, result)
        self._tell(job, state, result)
        self.on_end(job, state, result)

    # What comes next

    def _next(self) -> Job | None:
        while True:
            for job in self.waiting:
                if not self._in_training(job):
                    self.waiting.remove(job)
                    return job
            if len(self.waiting) < AHEAD and (drawn := self._draw()):
                self.waiting.append(drawn)
            else:
                break
        # With nobody to wait for here, another sweep trains it: the run itself waits for that.
        return self.waiting.pop(0) if self.waiting and not self.live else None

    def _draw(self) -> Job | None:
        if self.again:
            trial = optuna.Trial(self.study, self.again.pop(0)._trial_id)
        elif self.remaining() and self._affordable() and self._ready():
            trial = self.study.ask()
        else:
            return None
        self.handed += 1
        changes = trial.user_attrs.get(CHANGES)
        if changes is None:
            changes = self.space.suggest(trial)
            trial.set_user_attr(CHANGES, changes)
        return self._job(trial, 0, apply_changes(self.run, changes))

    def _ready(self) -> bool:
        return self.space.ready is None or self.space.ready(self.study, self.handed)

    def _job(self, trial: optuna.Trial, repeat: int, run: RunConfig) -> Job:
        if repeat:
            run = apply_changes(run, {"seed": run.seed + repeat})
        stages = stages_of(run) if self.store else []
        missing = [stage for stage in stages if self.store and not self.store.has(stage)]
        promised = sum(stage.samples for stage in (missing if self.store else stages_of(run)))
        earlier = trial.user_attrs.get(COSTS, {}).get(str(repeat), {})
        return Job(trial, repeat, run, stages, promised, earlier)

    def _in_training(self, job: Job) -> bool:
        """Whether a live run trains (or will) the first stage that `job` lacks."""
        if self.store is None:
            return False
        first = next((stage.key for stage in job.stages if not self.store.has(stage)), None)
        return any(first == stage.key for live in self.live.values() for stage in live.stages)

    # The budget and the end

    def _affordable(self) -> bool:
        if self.search.budget is None:
            return True
        promised = sum(job.promised - int(job.cost.get("trained", 0)) for job in [*self.live.values(), *self.waiting])
        more = self.run.method.samples * self.search.repeats
        return self.search.budget.allows(int(self.spent["trained"]) + promised, self.spent_seconds(), more)

    def spent_seconds(self) -> float:
        """Device-seconds of all runs so far."""
        return self.spent["device_seconds"]

    def _keep_cost(self, job: Job, result: dict[str, Any]) -> None:
        cost = {name: float(result.get(name, 0)) for name in ("samples", "trained", "device_seconds")}
        for name in self.spent:
            self.spent[name] += cost[name] - job.cost.get(name, 0.0)
        job.cost = cost
        costs = {**job.trial.user_attrs.get(COSTS, {}), str(job.repeat): cost}
        job.trial.set_user_attr(COSTS, costs)

    def _tell(self, job: Job, state: TrialState, result: dict[str, Any]) -> None:
        """A trial has ended when all its seeds have; one that fails or is stopped ends it at once."""
        number = job.trial.number
        if state == TrialState.COMPLETE:
            results = self.results.setdefault(number, [])
            results.append(result)
            if job.repeat == 0 and self.search.repeats > 1:
                others = [self._job(job.trial, repeat, job.run) for repeat in range(1, self.search.repeats)]
                self.waiting = [*others, *self.waiting]
            if len(results) == self.search.repeats:
                values = [float(np.mean([r[name] for r in results])) for name in self.search.objectives]
                self.study.tell(job.trial, values)
            return
        self.waiting = [other for other in self.waiting if other.trial.number != number]
        siblings = any(other.trial.number == number for other in self.live.values())
        if self.study._storage.get_trial(job.trial._trial_id).state == TrialState.RUNNING:
            self.study.tell(job.trial, state=state)
        if siblings:
            self.results.pop(number, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the storage has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the storage has it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its configuration; the study must not go with it

    def __deepcopy__(self, memo: dict[int, Any]) -> StudySearcher:
        return self


def _spent(trials: list[optuna.trial.FrozenTrial]) -> dict[str, float]:
    """What ended and running trials of earlier drivers have cost."""
    costs = [cost for trial in trials for cost in trial.user_attrs.get(COSTS, {}).values()]
    return {name: sum(cost[name] for cost in costs) for name in ("trained", "device_seconds")}


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Stops what the study's pruner gives up: asynchronous successive halving on samples seen (ASHA)."""

    def __init__(self, searcher: StudySearcher) -> None:
        super().__init__()
        self.searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Tune's question after each report. It comes before the searcher is told of it, so it is told here."""
        if trial.trial_id in self.searcher.live:
            self.searcher.on_trial_result(trial.trial_id, result)
        stop = self.searcher.should_stop(trial.trial_id, result)
        decision: str = TrialScheduler.STOP if stop else TrialScheduler.CONTINUE
        return decision

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> StudyScheduler:
        return self
