"""What Tune asks: which run is next, and which is to be stopped. The answers come from the study."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tract_ray.config import to_dict
from tract_ray.search.jobs import Job, JobQueue
from tract_ray.search.space import Space
from tract_ray.search.study import ANCHOR, Search
from tract_ray.training import RunConfig
from tract_ray.training.stage_store import StageStore


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
        """`store` tells which stages exist: a run waits while another trains what it needs. None: nothing is shared."""
        super().__init__(metric="distance", mode="min")
        self.search, self.on_start, self.on_end = search, on_start, on_end
        self.queue = JobQueue(study, space, run, search, store)

    @property
    def live(self) -> dict[str, Job]:
        """The runs that Tune has, by its names for them."""
        return self.queue.live

    @property
    def spent(self) -> dict[str, float]:
        """What all runs have cost: images `trained` and `device_seconds`."""
        return self.queue.spent

    def todo(self) -> int:
        """Trials that are still to be handed out, whatever the budget."""
        return self.queue.todo()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Tune's question: the configuration of one more run; None to ask again later."""
        job = self.queue.take(trial_id)
        if job is None:
            finished: str = Searcher.FINISHED
            return None if self.live else finished
        self.on_start(job)
        return {"name": job.name, "run": json.dumps(to_dict(job.run))}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the cost so far, and what successive halving compares: the score at this rung, of the first seed."""
        job, seen = self.live[trial_id], result["samples"]
        if all(result.get(name) == job.cost.get(name) for name in ("samples", "trained")):
            return  # heard already
        if self._competes(job, seen):
            step = self.search.reduction ** job.rungs.index(seen)
            # A restarted trial passes its rungs again; the first report stands.
            if step not in job.reported:
                job.trial.report(result["distance"], step)
                job.reported.add(step)
        self.queue.keep_cost(job, result)  # last: whoever resumes knows by it what was heard

    def should_stop(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the pruner gives the trial up, or the budget is spent. Anchors may be exempt from the pruner."""
        job = self.live.get(trial_id)
        if job is None or result.get("finished"):
            return False
        if self.queue.out_of_time():
            return True
        if not self._competes(job, result["samples"]):
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
            self.queue.keep_cost(job, result)
        self.queue.end(job, state, result)
        self.on_end(job, state, result)

    def _competes(self, job: Job, seen: int) -> bool:
        """Whether the score after `seen` images is compared with other trials'."""
        return self.search.stops and job.repeat == 0 and seen in job.rungs

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the storage has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the storage has it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its configuration; the study must not go with it

    def __deepcopy__(self, memo: dict[int, Any]) -> StudySearcher:
        return self


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
        return {}  # as the searcher's

    def __deepcopy__(self, memo: dict[int, Any]) -> StudyScheduler:
        return self
