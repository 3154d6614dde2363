"""A small search and a clock for it: what Tune would ask and report, without Tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from tract_ray.distillation import TractConfig
from tract_ray.training import RunConfig, TeacherConfig
from tract_ray.training.stages import StageStore
from tract_ray.tuning.searcher import StudySearcher
from tract_ray.tuning.space import Space
from tract_ray.tuning.study import Search, open_study

RUN = RunConfig(teacher=TeacherConfig(), method=TractConfig(samples=64 * 16, batch=64, time_schedule=(8, 4, 1)), seed=0)
RUNGS = [768, 1024]  # the middle and the end of the second phase


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {"method.mu_s": 1 - trial.suggest_float("rate", 1e-3, 1.0, log=True)}


SPACE = Space(suggest, ({"rate": 0.5}, {"rate": 1.0}))


class Driver:
    """A sweep's driver as far as Optuna is concerned; made again on the same file, it is a resumed one."""

    def __init__(
        self,
        path: Path,
        trials: int = 20,
        seed: int = 0,
        space: Space = SPACE,
        run: RunConfig = RUN,
        store: StageStore | None = None,
        **search: Any,
    ) -> None:
        settings = Search(trials=trials, seed=seed, **search)
        self.study = open_study(path, "sweep", space, settings)
        self.started: list[int] = []
        self.ended: list[tuple[int, TrialState]] = []
        self.searcher = StudySearcher(
            self.study,
            space,
            run,
            settings,
            lambda job: self.started.append(job.trial.number),
            lambda job, state, result: self.ended.append((job.trial.number, state)),
            store,
        )
        self.asked = 0

    def ask(self) -> tuple[str, dict[str, Any]] | None:
        """The next trial: the name that Tune gives it, and its configuration."""
        name = f"tune-{self.asked}"
        self.asked += 1
        config = self.searcher.suggest(name)
        return (name, config) if isinstance(config, dict) else None

    def report(self, name: str, samples: int, distance: float) -> bool:
        """A report of a trial; whether it is stopped."""
        result = {"samples": samples, "distance": distance, "mu_i": 0.9, "finished": False, **self.cost(samples)}
        self.searcher.on_trial_result(name, result)
        return self.searcher.should_stop(name, result)

    def cost(self, samples: int) -> dict[str, float]:
        """As if everything was trained, at a thousand images a second."""
        return {"trained": samples, "device_seconds": samples / 1000}

    def finish(self, name: str, distance: float, trained: int = 1024) -> None:
        result = {"samples": 1024, "distance": distance, "mu_i": 0.9, "finished": True, **self.cost(trained)}
        self.searcher.on_trial_result(name, result)
        assert not self.searcher.should_stop(name, result)
        self.searcher.on_trial_complete(name, result)

    def stop(self, name: str, samples: int, distance: float) -> None:
        result = {"samples": samples, "distance": distance, "mu_i": 0.9, "finished": False, **self.cost(samples)}
        self.searcher.on_trial_complete(name, result)

    def states(self) -> dict[int, TrialState]:
        return {trial.number: trial.state for trial in self.study.get_trials(deepcopy=False)}
