"""A sweep without machines: its queue, with made-up scores. What a dry run foresees, and how the account is tested."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState

from tract_ray.distillation import derive_seed
from tract_ray.search.jobs import Job, JobQueue
from tract_ray.training.stage_store import StageStore
from tract_ray.training.stages import Stage

Score = Callable[[Job], float]
SPEED = 1000.0  # images a second


class RehearsedStages(StageStore):
    """Stages that rehearsed runs have trained, beside those of a `real` store."""

    def __init__(self, real: StageStore | None = None) -> None:
        self.real = real
        self.paths = real.paths if real else None
        self.keys: set[str] = set()

    def has(self, stage: Stage) -> bool:
        return stage.key in self.keys or (self.real is not None and self.real.has(stage))


@dataclass
class _Place:
    """How far a run has come: images seen and trained."""

    seen: int = 0
    trained: int = 0


def by_chance(seed: int) -> Score:
    """A distance for each run: its trial's, and a little that its seed adds."""

    def score(job: Job) -> float:
        draw = random.Random(derive_seed("rehearsal", seed, job.trial.number))
        return 10 + 10 * draw.random() + 0.1 * job.repeat

    return score


class Rehearsal:
    """Goes through the runs of a queue, `slots` at once and in turn, from mark to mark.

    What has been trained is kept, so a rehearsal goes on with another queue as a sweep does with another driver.
    `fails` says whether a run breaks at a mark.
    """

    def __init__(
        self,
        stages: RehearsedStages | None = None,
        *,
        slots: int = 1,
        score: Score | None = None,
        fails: Callable[[Job], bool] = lambda job: False,
    ) -> None:
        self.stages, self.slots, self.score, self.fails = stages, slots, score or by_chance(0), fails
        self.places: dict[str, _Place] = {}
        self.claims: dict[str, str] = {}  # who is in the middle of a stage

    def run(self, queue: JobQueue, marks: int | None = None, on_mark: Callable[[JobQueue], None] | None = None) -> bool:
        """Until the queue has no more, or for so many `marks`, as if the driver was killed; whether it came to its end.

        `on_mark` is called with the queue after each.
        """
        live: list[tuple[str, Job]] = []
        asked = passed = 0
        self.claims = {}
        while True:
            while len(live) < self.slots and (job := queue.take(name := f"run-{asked}")):
                live.append((name, job))
                asked += 1
            if not live:
                return True
            name, job = live.pop(0)
            place = self.places.setdefault(job.name, _Place())
            state = self._advance(queue, job, place)
            if state is None:
                live.append((name, job))
            else:
                self.claims = {key: owner for key, owner in self.claims.items() if owner != job.name}
                del queue.live[name]
                result = self._result(job, place, finished=state == TrialState.COMPLETE)
                queue.keep_cost(job, result)
                queue.end(job, state, result | ({"failed": "as asked"} if state == TrialState.FAIL else {}))
            passed += 1
            if on_mark:
                on_mark(queue)
            if marks is not None and passed >= marks:
                return False

    def _advance(self, queue: JobQueue, job: Job, place: _Place) -> TrialState | None:
        """Bring a run to its next mark; how it ended there, None if it goes on."""
        if self.fails(job):
            return TrialState.FAIL
        begin = 0
        for stage in job.stages:
            end = begin + stage.samples
            if place.seen < end:
                if self.claims.get(stage.key, job.name) != job.name:
                    return None  # another trains it: this run waits
                self._within(job, stage, begin, end, place)
                break
            begin = end
        if place.seen == job.entry.whole:
            return TrialState.COMPLETE
        result = self._result(job, place)
        queue.report(job, result)
        return TrialState.PRUNED if queue.must_stop(job, result) else None

    def _within(self, job: Job, stage: Stage, begin: int, end: int, place: _Place) -> None:
        """To the next mark of a stage, which nobody trains twice."""
        mark = min([rung for rung in job.rungs if place.seen < rung < end], default=end)
        if self.stages is None or not self.stages.has(stage):
            place.trained += mark - place.seen
            if self.stages is not None:
                self.claims[stage.key] = job.name
                if mark == end:
                    del self.claims[stage.key]
                    self.stages.keys.add(stage.key)
        place.seen = mark

    def _result(self, job: Job, place: _Place, finished: bool = False) -> dict[str, Any]:
        cost = {"samples": place.seen, "trained": place.trained, "device_seconds": place.trained / SPEED}
        named = {"distance": self.score(job), "mu_i": 0.5, "parameters": 1.0, "seconds_per_image": 1.0}
        return {**cost, **named, "finished": finished}
