"""What Tune asks: which run is next, and which is to be stopped. The answers come from the study."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.utils.util import unflatten_dict

from tract_ray.cluster.retries import Retries
from tract_ray.cluster.trial import ran_at
from tract_ray.config import to_dict
from tract_ray.search.account import Account
from tract_ray.search.jobs import Job, JobQueue
from tract_ray.search.space import Space
from tract_ray.search.study import Search
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
        limit: Callable[[], int] | None = None,
        retries: int = 0,
        on_retry: Callable[[Job, float], None] | None = None,
        avoid: Callable[[str], str] = lambda address: "",
    ) -> None:
        """`store` tells which stages exist: a run waits while another trains what it needs. None: nothing is shared.
        `limit` is asked how many runs may be live at once, at each question: a cluster may grow. What a machine fails
        is handed out again, `retries` times, `on_retry` told after how many seconds; `avoid` names the node that it is
        then not to run on, by the address at which it failed.
        """
        super().__init__(metric="distance", mode="min")
        self.search, self.on_start, self.on_end = search, on_start, on_end
        self.queue, self.limit = JobQueue(study, space, run, search, store), limit
        self.retries, self.on_retry, self.avoid = Retries(retries), on_retry, avoid
        self.failed_at: dict[str, str] = {}  # by Tune's names

    @property
    def live(self) -> dict[str, Job]:
        """The runs that Tune has, by its names for them."""
        return self.queue.live

    @property
    def account(self) -> Account:
        """What all runs have cost, those of earlier drivers included."""
        return self.queue.account

    def todo(self) -> int:
        """Trials that are still to be handed out, whatever the budget."""
        return self.queue.todo()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Tune's question: the configuration of one more run; None to ask again later."""
        if self.limit and len(self.live) - len(self.retries.waiting) >= self.limit():
            return None
        if again := self.retries.take():
            self.live[trial_id] = self.live.pop(_waiting(again.job))
            return self._config(again.job, self.avoid(again.failed_at))
        job = self.queue.take(trial_id)
        if job is None:
            finished: str = Searcher.FINISHED
            return None if self.live else finished
        self.on_start(job)
        return self._config(job, "")

    def _config(self, job: Job, avoid: str) -> dict[str, Any]:
        return {"name": job.name, "run": json.dumps(to_dict(job.run)), "avoid": avoid}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A report of a run, which may come twice."""
        if "failed" in result:
            return  # its last one, of no scores
        self.queue.report(self.live[trial_id], result)

    def should_stop(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the pruner gives the trial up, or the budget is spent."""
        job = self.live.get(trial_id)
        return job is not None and "failed" not in result and self.queue.must_stop(job, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how the run ended. A stopped trial is PRUNED: its last score is not its final one."""
        job = self.live.pop(trial_id, None)
        if job is None:
            return
        result = unflatten_dict(dict(result or {}))  # Tune tells it with "distances/0.9" for what is below "distances"
        if error and (seconds := self.retries.add(job, self.failed_at.pop(trial_id, ""))) is not None:
            self.live[_waiting(job)] = job  # for everybody else it is still one of those that are on their way
            if self.on_retry:
                self.on_retry(job, seconds)
            return
        if error or "distance" not in result:  # of the configuration's making where it says why it `failed`
            state = TrialState.FAIL
        elif result.get("finished"):
            state = TrialState.COMPLETE
        else:
            state = TrialState.PRUNED
        if "samples" in result:
            self.queue.keep_cost(job, result)
        self.queue.end(job, state, result)
        self.on_end(job, state, result)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the storage has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the storage has it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its configuration; the study must not go with it

    def __deepcopy__(self, memo: dict[int, Any]) -> StudySearcher:
        return self


def _waiting(job: Job) -> str:
    """The name among those that are live of a run that waits for being begun again."""
    return f"again {job.name}"


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

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Tune's word for a trial that a machine failed, before the searcher hears of it: where was it?"""
        at = trial.node_ip or ran_at(Path(trial.config["folder"]) / trial.config["name"])
        self.searcher.failed_at[trial.trial_id] = at

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as the searcher's

    def __deepcopy__(self, memo: dict[int, Any]) -> StudyScheduler:
        return self
