"""The runs of a study's trials: which is next, what they have cost, and what their ends mean for the trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from tract_ray.search.space import Space, apply_changes
from tract_ray.search.study import CHANGES, COSTS, Search, rungs
from tract_ray.search.trial_name import trial_name
from tract_ray.search.warm_start import own_trials
from tract_ray.training import RunConfig
from tract_ray.training.stage_store import StageStore
from tract_ray.training.stages import Stage, stages_of

AHEAD = 4  # configurations that may wait for a stage while others are drawn
COST = ("samples", "trained", "device_seconds")


@dataclass
class Job:
    """One run of a trial: its `repeat`-th seed.

    `stages` are the run's, `rungs` the images seen at which it competes. `promised` are
    the images that it will train at most; `cost` is what it has had so far: images seen (`samples`) and `trained`,
    and `device_seconds`. `reported` are the steps of the study that know a score of it.
    """

    trial: optuna.Trial
    repeat: int
    run: RunConfig
    stages: list[Stage]
    rungs: list[int]
    promised: int = 0
    cost: dict[str, float] = field(default_factory=dict)
    reported: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        """`trial-0007`, its further seeds `trial-0007.1`, …: folder and MLflow run."""
        return trial_name(self.trial.number, self.repeat)


class JobQueue:
    """Hands out the runs of a study, a trial after the other; a trial's further seeds follow when its first has ended.

    `live` are the runs that are handed out and have not ended, by the names that whoever takes them chooses; `spent`
    is what all runs have cost, those of earlier drivers included: images `trained` and `device_seconds`.
    """

    def __init__(
        self, study: optuna.Study, space: Space, run: RunConfig, search: Search, store: StageStore | None = None
    ) -> None:
        """`store` tells which stages exist: a run waits while another trains what it needs. None: nothing is shared."""
        self.study, self.space, self.run, self.search, self.store = study, space, run, search, store
        self.live: dict[str, Job] = {}
        self.waiting: list[Job] = []
        self.results: dict[int, list[Mapping[str, Any]]] = {}  # of the seeds that have ended, by trial
        self.broken: dict[int, TrialState] = {}  # trials of which a seed did not finish, and how it ended
        known = own_trials(study)
        # Handed out by an earlier driver and never ended: they come first.
        self.again = [trial for trial in known if trial.state == TrialState.RUNNING]
        self.handed: int = sum(trial.state.is_finished() for trial in known)
        costs = [cost for trial in known for cost in trial.user_attrs.get(COSTS, {}).values()]
        self.spent: dict[str, float] = {
            name: sum(cost[name] for cost in costs) for name in ("trained", "device_seconds")
        }

    def todo(self) -> int:
        """Trials that are still to be handed out, whatever the budget."""
        return self._undrawn() + len(self.again)

    def take(self, name: str) -> Job | None:
        """The next run, which is `live` from now on; None if there is none, or none yet."""
        job = self._next()
        if job is not None:
            self.live[name] = job
        return job

    def keep_cost(self, job: Job, result: Mapping[str, Any]) -> None:
        """Write down what a run has cost up to this report."""
        cost = {name: float(result.get(name, 0)) for name in COST}
        if cost == job.cost:
            return
        for name in self.spent:
            self.spent[name] += cost[name] - job.cost.get(name, 0.0)
        job.cost = cost
        job.trial.set_user_attr(COSTS, {**job.trial.user_attrs.get(COSTS, {}), str(job.repeat): cost})

    def out_of_time(self) -> bool:
        """Whether the budget of device time is spent, so that what runs must end."""
        budget = self.search.budget
        return budget is not None and budget.exhausted(self.spent["device_seconds"])

    def end(self, job: Job, state: TrialState, result: Mapping[str, Any]) -> None:
        """Begin the trial's further seeds, or tell the study how it ended.

        When a seed fails or is stopped, no other is begun, and the trial ends so. It ends with the last of those that
        run by then: the study keeps their costs, and takes nothing of a trial that has ended.
        """
        number = job.trial.number
        if state != TrialState.COMPLETE:
            self.waiting = [other for other in self.waiting if other.trial.number != number]
            self.broken.setdefault(number, state)
        results = self.results.setdefault(number, [])
        results.append(result)
        if number in self.broken:
            if not any(other.trial.number == number for other in self.live.values()):
                self.study.tell(job.trial, state=self.broken.pop(number))
            return
        if job.repeat == 0:
            others = [self._job(job.trial, repeat, job.run) for repeat in range(1, self.search.repeats)]
            self.waiting = [*others, *self.waiting]
        if len(results) == self.search.repeats:
            values = [float(np.mean([r[name] for r in results])) for name in self.search.objectives]
            self.study.tell(job.trial, values)

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

    def _in_training(self, job: Job) -> bool:
        """Whether a live run trains (or will) the first stage that `job` lacks."""
        if self.store is None:
            return False
        first = next((stage.key for stage in job.stages if not self.store.has(stage)), None)
        return any(first == stage.key for live in self.live.values() for stage in live.stages)

    def _draw(self) -> Job | None:
        """The first run of a trial that was interrupted or is new."""
        earlier: FrozenTrial | None = None
        if self.again:
            earlier = self.again.pop(0)
            trial = optuna.Trial(self.study, earlier._trial_id)  # no public name takes a running trial up again
        elif self._undrawn() and self._affordable() and self._ready():
            trial = self.study.ask()
        else:
            return None
        self.handed += 1
        changes = trial.user_attrs.get(CHANGES)
        if changes is None:
            changes = self.space.suggest(trial)
            trial.set_user_attr(CHANGES, changes)
        job = self._job(trial, 0, apply_changes(self.run, changes))
        job.reported.update(earlier.intermediate_values if earlier else ())
        return job

    def _undrawn(self) -> int:
        """New configurations that are still to be drawn."""
        return max(0, self.search.trials - self.handed - len(self.again))

    def _affordable(self) -> bool:
        """Whether the budget has room for one more configuration, all its seeds trained whole."""
        if self.search.budget is None:
            return True
        promised = sum(job.promised - int(job.cost.get("trained", 0)) for job in [*self.live.values(), *self.waiting])
        more = self.run.method.samples * self.search.repeats
        return self.search.budget.allows(int(self.spent["trained"]) + promised, self.spent["device_seconds"], more)

    def _ready(self) -> bool:
        return self.space.ready is None or self.space.ready(self.study, self.handed)

    def _job(self, trial: optuna.Trial, repeat: int, run: RunConfig) -> Job:
        """The `repeat`-th seed of `run`, which is the trial's first."""
        if repeat:
            run = apply_changes(run, {"seed": run.seed + repeat})
        stages = stages_of(run)
        promised = sum(stage.samples for stage in stages if self.store is None or not self.store.has(stage))
        earlier = trial.user_attrs.get(COSTS, {}).get(str(repeat), {})
        compete = rungs(run, self.search.rungs)
        return Job(trial, repeat, run, stages, compete, promised, earlier)
