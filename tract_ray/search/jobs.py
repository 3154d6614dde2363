"""The runs of a study's trials: which is next, what they have cost, and what their ends mean for the trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tract_ray.config import AGAIN
from tract_ray.search.account import Account, Entry
from tract_ray.search.sealed import end_sealed, seal_drawn
from tract_ray.search.seeds import mean, pooled
from tract_ray.search.space import Space, apply_changes
from tract_ray.search.study import ANCHOR, CHANGES, COSTS, CUT, FAILED, MACHINE, Search, rungs
from tract_ray.search.trial_name import trial_name
from tract_ray.search.warm_start import own_trials
from tract_ray.training import RunConfig
from tract_ray.training.stage_store import StageStore
from tract_ray.training.stages import Stage, stages_of

AHEAD = 4  # configurations that may wait for a stage while others are drawn


@dataclass
class Job:
    """One run of a trial: its `repeat`-th seed.

    `stages` are the run's, `rungs` the images seen at which it competes, `entry` is its place in the account.
    `reported` are the steps of the study that know a score of it. A run that is `cut` was ended by the budget.
    """

    trial: optuna.Trial
    repeat: int
    run: RunConfig
    stages: list[Stage]
    rungs: list[int]
    entry: Entry
    reported: set[int] = field(default_factory=set)
    cut: bool = False

    @property
    def name(self) -> str:
        """`trial-0007`, its further seeds `trial-0007.1`, …: folder and MLflow run."""
        return trial_name(self.trial.number, self.repeat)

    @property
    def cost(self) -> dict[str, float]:
        """What it has had so far: images seen (`samples`) and `trained`, and `device_seconds`."""
        return self.entry.cost


class JobQueue:
    """Hands out the runs of a study, a trial after the other; a trial's further seeds follow when its first has ended.

    `live` are the runs that are handed out and have not ended, by the names that whoever takes them chooses;
    `account` has all runs, those of earlier drivers included.
    """

    def __init__(
        self, study: optuna.Study, space: Space, run: RunConfig, search: Search, store: StageStore | None = None
    ) -> None:
        """`store` tells which stages exist: a run waits while another trains what it needs. None: nothing is shared."""
        self.study, self.space, self.run, self.search, self.store = study, space, run, search, store
        self.live: dict[str, Job] = {}
        self.waiting: list[Job] = []
        self.held: list[Job] | None = None  # the seeds of a trial for which the budget has no room yet
        self.further: dict[int, list[Job]] = {}  # seeds that follow their trial's first, by trial
        self.results: dict[int, list[Mapping[str, Any]]] = {}  # of the seeds that have ended, by trial
        self.broken: dict[int, TrialState] = {}  # trials of which a seed did not finish, and how it ended
        self.over = False  # there is no more, or nothing that the budget has room for
        self.account = Account(search.budget)
        known = own_trials(study)
        # Handed out by an earlier driver and never ended: they come first.
        self.again = [trial for trial in known if trial.state == TrialState.RUNNING]
        self.handed: int = sum(trial.state.is_finished() for trial in known)
        for trial in known:
            self._recall(trial)

    def todo(self) -> int:
        """Trials that are still to be handed out, whatever the budget."""
        return self._undrawn() + len(self.again)

    def foreseen(self) -> int:
        """Images that all runs will have seen in the end, those of trials to come as long as the first one's."""
        further = 0 if self.over else self.todo() * self.search.repeats * self.run.method.samples
        return self.account.foreseen(further)

    def take(self, name: str) -> Job | None:
        """The next run, which is `live` from now on; None if there is none, or none yet."""
        job = self._next()
        if job is not None:
            job.entry.look_up(self._missing(job.stages))
            self.live[name] = job
        elif not self.live:
            self._leave()
        return job

    def keep_cost(self, job: Job, result: Mapping[str, Any]) -> None:
        """Write down what a run has cost up to this report."""
        before = dict(job.cost)
        self.account.spend(job.entry, result)
        if job.cost != before:
            job.trial.set_user_attr(COSTS, {**job.trial.user_attrs.get(COSTS, {}), str(job.repeat): job.cost})

    def report(self, job: Job, result: Mapping[str, Any]) -> None:
        """Keep the cost so far, and what successive halving compares: the score at this rung, of the first seed."""
        seen = result["samples"]
        if all(result.get(name) == job.cost.get(name) for name in ("samples", "trained")):
            return  # heard already
        if self._competes(job, seen):
            step = self.search.reduction ** job.rungs.index(seen)
            # A restarted trial passes its rungs again; the first report stands.
            if step not in job.reported:
                job.trial.report(result["distance"], step)
                job.reported.add(step)
        self.keep_cost(job, result)  # last: whoever resumes knows by it what was heard

    def must_stop(self, job: Job, result: Mapping[str, Any]) -> bool:
        """Whether the pruner gives the trial up, or the budget is spent. Anchors may be exempt from the pruner."""
        if result.get("finished"):
            return False
        if self.account.must_end(job.entry, [other.entry for other in self.live.values()]):
            job.cut = True
            return True
        if not self._competes(job, result["samples"]):
            return False
        exempt = self.search.finish_anchors and job.trial.user_attrs.get(ANCHOR)
        return bool(job.trial.should_prune() and not exempt)  # asked in any case: the exempt compete, too

    def end(self, job: Job, state: TrialState, result: Mapping[str, Any]) -> None:
        """Begin the trial's further seeds, or tell the study how it ended.

        When a seed fails or is stopped, no other is begun, and the trial ends so. It ends with the last of those that
        run by then: the study keeps their costs, and takes nothing of a trial that has ended. A trial that the budget
        cut is not over: a sweep that goes on with a larger one continues it. So it is with one that failed, unless
        `result` says why its configuration cannot come to an end (`failed`).
        """
        number, complete = job.trial.number, state == TrialState.COMPLETE
        self.account.end(job.entry, complete)
        results = self.results.setdefault(number, [])
        running = {other.repeat for other in self.live.values() if other.trial.number == number}
        if complete:
            results.append(result)
        else:
            self.waiting = [other for other in self.waiting if other.trial.number != number]
            self.account.release(number, running)
            if job.cut and state == TrialState.PRUNED:
                job.trial.set_user_attr(CUT, True)
            else:
                if self.broken.setdefault(number, state) == state == TrialState.FAIL:
                    self._note_failure(job.trial, result)
        if number in self.broken:
            if not running:
                ended = self.broken.pop(number)
                if ended != TrialState.FAIL or not job.trial.user_attrs[FAILED].endswith(AGAIN):
                    end_sealed(self.study, job.trial, state=ended)
            return
        if complete and job.repeat == 0:
            self.waiting = [*self.further.pop(number), *self.waiting]
        if len(results) == self.search.repeats:
            end_sealed(self.study, job.trial, self._values(job, results))

    def _note_failure(self, trial: optuna.Trial, result: Mapping[str, Any]) -> None:
        self.account.failed.add(trial.number)
        known, reason = trial.user_attrs.get(FAILED), result.get("failed", MACHINE)
        if not known or (known.endswith(AGAIN) and not reason.endswith(AGAIN)):
            trial.set_user_attr(FAILED, reason)

    def _values(self, job: Job, results: list[Mapping[str, Any]]) -> list[float]:
        """The objectives: what the row is chosen by (the distance that it shows is of fresh noise), means of others."""
        selection = pooled(results, job.run.evaluation.select).selection
        return [
            selection if name == "distance" else mean([float(result[name]) for result in results])
            for name in self.search.objectives
        ]

    # What comes next

    def _next(self) -> Job | None:
        while not self.account.exhausted():
            for job in self.waiting:
                if not self._in_training(job):
                    self.waiting.remove(job)
                    return job
            if len(self.waiting) < AHEAD and self._draw():
                continue
            # With nobody to wait for here, another sweep trains it: the run itself waits for that.
            return self.waiting.pop(0) if self.waiting and not self.live else None
        return None

    def _in_training(self, job: Job) -> bool:
        """Whether a live run trains (or will) the first stage that `job` lacks."""
        if self.store is None:
            return False
        first = next((stage.key for stage in job.stages if not self.store.has(stage)), None)
        return any(first == stage.key for live in self.live.values() for stage in live.stages)

    def _draw(self) -> bool:
        """Let a trial that was interrupted or is new wait for its turn, if the budget has room for all its seeds."""
        if self.held is None:
            self.held = self._drawn()
        if self.held is None:
            return False
        first = self.held[0]
        if not self.account.promise(first.trial.number, [job.entry for job in self.held]):
            return False
        if first.trial.user_attrs.get(CUT):
            first.trial.set_user_attr(CUT, False)
        self.waiting.append(first)
        self.further[first.trial.number] = self.held[1:]
        self.held = None
        return True

    def _drawn(self) -> list[Job] | None:
        """The seeds of a trial that was interrupted or is new."""
        earlier: FrozenTrial | None = None
        if self.again:
            earlier = self.again.pop(0)
            trial = optuna.Trial(self.study, earlier._trial_id)  # no public name takes a running trial up again
            if trial.user_attrs.get(FAILED):
                trial.set_user_attr(FAILED, "")
                self.account.failed.discard(trial.number)
        elif self._undrawn() and self._ready():
            trial = self.study.ask()
        else:
            return None
        self.handed += 1
        if CHANGES not in trial.user_attrs:
            trial.set_user_attr(CHANGES, self.space.suggest(trial))
            seal_drawn(trial)
        seeds = self._seeds(trial)
        seeds[0].reported.update(earlier.intermediate_values if earlier else ())
        return seeds

    def _undrawn(self) -> int:
        """New configurations that are still to be drawn."""
        return max(0, self.search.trials - self.handed - len(self.again))

    def _ready(self) -> bool:
        return self.space.ready is None or self.space.ready(self.study, self.handed)

    def _leave(self) -> None:
        """Mark what the budget left undone: there is nothing to wait for any more."""
        self.over = True
        left = [*self.waiting, *(self.held or ())]
        trials = {job.trial.number: job.trial for job in left}
        trials |= {trial.number: optuna.Trial(self.study, trial._trial_id) for trial in self.again}
        for trial in trials.values():
            self.account.release(trial.number)
            if COSTS not in trial.user_attrs:
                self.account.forget(trial.number)
            if not trial.user_attrs.get(CUT):
                trial.set_user_attr(CUT, True)

    # Runs and their entries

    def _seeds(self, trial: optuna.Trial) -> list[Job]:
        """All runs of a trial."""
        return [
            Job(trial, repeat, run, stages, rungs(run, self.search.rungs), entry)
            for repeat, (run, stages, entry) in enumerate(self._plans(trial))
        ]

    def _plans(self, trial: optuna.Trial | FrozenTrial) -> list[tuple[RunConfig, list[Stage], Entry]]:
        """Each seed of a trial, its stages, and its entry: the account's or a new one, with the cost that is known."""
        attributes, plans = trial.user_attrs, []
        first = apply_changes(self.run, attributes[CHANGES])
        banked = first.evaluation.select == "best" and bool(getattr(first.method, "mu_i_bank", None))
        if banked and self.search.repeats > 1:  # the row's mu_i may be any of them
            first = replace(first, evaluation=replace(first.evaluation, report="all"))
        for repeat in range(self.search.repeats):
            run = replace(first, seed=first.seed + repeat)
            stages = self.store.stages_of(run) if self.store else stages_of(run)
            entry = self.account.entries.get((trial.number, repeat))
            if entry is None:
                entry = Entry({stage.key: stage.samples for stage in stages}, 0)
                self.account.spend(entry, attributes.get(COSTS, {}).get(str(repeat), {}))
            entry.look_up(self._missing(stages))
            plans.append((run, stages, entry))
        return plans

    def _missing(self, stages: list[Stage]) -> int:
        """Images of the stages that nobody has trained yet."""
        return sum(stage.samples for stage in stages if self.store is None or not self.store.has(stage))

    def _recall(self, trial: FrozenTrial) -> None:
        """Enter what the runs of earlier drivers have cost: nothing of it is promised before it is taken up again."""
        if trial.user_attrs.get(FAILED) or trial.state == TrialState.FAIL:
            self.account.failed.add(trial.number)
        if CHANGES in trial.user_attrs and (trial.state.is_finished() or COSTS in trial.user_attrs):
            for repeat, (_, _, entry) in enumerate(self._plans(trial)):
                self.account.end(entry, trial.state == TrialState.COMPLETE)
                self.account.entries[trial.number, repeat] = entry

    def _competes(self, job: Job, seen: int) -> bool:
        """Whether the score after `seen` images is compared with other trials'."""
        return self.search.stops and job.repeat == 0 and seen in job.rungs
