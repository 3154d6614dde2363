"""The study: Optuna's persistent storage is the sweep's memory, and Tune asks it what to try and what to stop.

Nothing of a sweep lives in Tune's own state. A trial is a row of the storage and a folder; when everything else is
gone, asking the storage again hands out the unfinished trials first, and their folders continue them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tract_ray.config import InputError, to_dict
from tract_ray.training import RunConfig
from tract_ray.training.distill import evaluation_marks
from tract_ray.tuning.space import Space, apply_changes

CHANGES, ANCHOR, SAMPLES = "changes", "anchor", "samples"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def open_study(path: Path, name: str, space: Space, *, seed: int, trials: int) -> optuna.Study:
    """The study in the database file `path`, made with the space's anchors enqueued if it is new.

    TPE is seeded; asynchronous successive halving prunes, its k-th rung at step 2^k. Both read the storage, so a
    resumed sweep suggests and stops with everything it knew.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    is_new = not path.is_file()
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        known = 0 if is_new else len(optuna.load_study(study_name=name, storage=storage).trials)
    except Exception as error:
        raise InputError(f"storage: {path} is not a readable study ({str(error).splitlines()[0]})") from None
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=seed + known, n_startup_trials=max(4, min(10, trials // 3))),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    )
    if is_new:
        for anchor in space.anchors[:trials]:
            study.enqueue_trial(dict(anchor), user_attrs={ANCHOR: True})
    return study


def rungs(run: RunConfig) -> list[int]:
    """Samples seen at which trials compete: from the end of the first phase on, every mark at which a run is scored.

    Before that, students of half a phase differ by less than their scores' noise.
    """
    phases = run.method.phases()
    marks = sorted(evaluation_marks(phases, run.evaluation.per_phase))
    return [step * run.method.batch for step in marks if step >= phases[0].end or len(phases) == 1]


class StudySearcher(Searcher):  # type: ignore[misc]
    """Hands the study's trials to Tune. `on_start(number, run)` and `on_end(number, state)` follow what happens."""

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        run: RunConfig,
        trials: int,
        on_start: Callable[[int, RunConfig], None],
        on_end: Callable[[int, TrialState, dict[str, Any]], None],
    ) -> None:
        super().__init__(metric="distance", mode="min")
        self.study, self.space, self.run, self.trials = study, space, run, trials
        self.on_start, self.on_end = on_start, on_end
        self.live: dict[str, optuna.Trial] = {}
        # Handed out by an earlier driver and never ended: they come first.
        self.again = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self.rungs = rungs(run)

    def remaining(self) -> int:
        """New trials that are still to be handed out."""
        done = sum(t.state in FINISHED for t in self.study.get_trials(deepcopy=False))
        return max(0, self.trials - done - len(self.live) - len(self.again))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Tune's question: the configuration of one more trial."""
        if self.again:
            trial = optuna.Trial(self.study, self.again.pop(0)._trial_id)
        elif self.remaining():
            trial = self.study.ask()
        else:
            finished: str = Searcher.FINISHED
            return finished
        changes = trial.user_attrs.get(CHANGES)
        if changes is None:
            changes = self.space.suggest(trial)
            trial.set_user_attr(CHANGES, changes)
        run = apply_changes(self.run, changes)
        self.live[trial_id] = trial
        self.on_start(trial.number, run)
        return {"number": trial.number, "run": json.dumps(to_dict(run)), "total": run.method.samples}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the score at samples seen, and what successive halving compares: the score at this rung."""
        trial, seen = self.live[trial_id], result["samples"]
        trial.set_user_attr(SAMPLES, seen)
        if seen in self.rungs:
            rung = 2 ** self.rungs.index(seen)
            # A restarted trial passes its rungs again; the first report stands.
            if rung not in self.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
                trial.report(result["distance"], rung)

    def should_stop(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether successive halving gives the trial up. Anchors compete at every rung and are never given up."""
        trial = self.live.get(trial_id)
        if trial is None or result.get("finished") or result["samples"] not in self.rungs:
            return False
        return bool(trial.should_prune() and not trial.user_attrs.get(ANCHOR))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how the trial ended. A stopped one is PRUNED: its last score is not its final one."""
        trial = self.live.pop(trial_id, None)
        if trial is None:
            return
        result = result or {}
        if error or "distance" not in result:
            state = TrialState.FAIL
            self.study.tell(trial, state=state)
        elif result.get("finished"):
            state = TrialState.COMPLETE
            self.study.tell(trial, result["distance"])
        else:
            state = TrialState.PRUNED
            self.study.tell(trial, state=state)
        self.on_end(trial.number, state, result)

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
        """Tune's question after each report."""
        stop = self.searcher.should_stop(trial.trial_id, result)
        decision: str = TrialScheduler.STOP if stop else TrialScheduler.CONTINUE
        return decision

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> StudyScheduler:
        return self
