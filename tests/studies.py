"""A small search and a clock for it: what Tune would ask and report, without Tune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import TrialState

from tract_ray.cluster.tune_searcher import StudySearcher
from tract_ray.config import from_dict
from tract_ray.distillation import TractConfig
from tract_ray.search.space import Space
from tract_ray.search.study import Search, open_study
from tract_ray.training import RunConfig, TeacherConfig
from tract_ray.training.stage_store import StageStore

RUN = RunConfig(teacher=TeacherConfig(), method=TractConfig(samples=64 * 16, batch=64, time_schedule=(8, 4, 1)), seed=0)
RUNGS = [768, 1024]  # the middle and the end of the second phase


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {"method.mu_s": 1 - trial.suggest_float("rate", 1e-3, 1.0, log=True)}


SPACE = Space(suggest, ({"rate": 0.5}, {"rate": 1.0}))


BANKED = RUN.replace_method(mu_i_bank=(0.5, 0.75), mu_i_bank_phases="all", mu_i=0.5)


def mu_i(trial: optuna.Trial) -> dict[str, Any]:
    """Runs that share their first phase, unless `mu_s` differs."""
    return {
        "method.mu_i": trial.suggest_categorical("mu_i", [0.5, 0.75]),
        "method.mu_s": trial.suggest_categorical("mu_s", [0.5, 0.9]),
    }


SHARING = Space(mu_i, tuple({"mu_i": i, "mu_s": s} for s in (0.5, 0.9) for i in (0.5, 0.75)))


class Asked(NamedTuple):
    """A run that was handed out: Tune's name for it, its trial's number, which of its seeds it is, and what it runs."""

    name: str
    number: int
    repeat: int
    run: RunConfig


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
        settings = Search(
            **{"trials": trials, "seed": seed, "reduction": 2, "rungs": 2, "finish_anchors": True, **search}
        )
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

    def offered(self) -> Asked | None:
        """The next run, if there is one to be had now."""
        name = f"tune-{self.asked}"
        self.asked += 1
        config = self.searcher.suggest(name)
        if not isinstance(config, dict):
            return None
        job = self.searcher.live[name]
        assert config["name"] == job.name
        return Asked(name, job.trial.number, job.repeat, from_dict(RunConfig, json.loads(config["run"])))

    def ask(self) -> Asked:
        """The next run, which there must be."""
        asked = self.offered()
        assert asked is not None
        return asked

    def waits(self) -> bool:
        """Whether there is nothing now, but may be later."""
        return self.searcher.suggest("later") is None

    def result(
        self, samples: int, distance: float, finished: bool = False, trained: int | None = None
    ) -> dict[str, Any]:
        """As a run reports, at a thousand images a second; it has `trained` all that it saw unless told otherwise."""
        trained = samples if trained is None else trained
        cost = {"trained": trained, "device_seconds": trained / 1000}
        return {"samples": samples, "distance": distance, "mu_i": 0.9, "finished": finished, **cost}

    def report(self, asked: Asked, samples: int, distance: float) -> bool:
        """A report of a run; whether it is stopped."""
        result = self.result(samples, distance)
        self.searcher.on_trial_result(asked.name, result)
        return self.searcher.should_stop(asked.name, result)

    def finish(self, asked: Asked, distance: float, trained: int = 1024) -> None:
        """A run comes to its end."""
        result = self.result(1024, distance, finished=True, trained=trained)
        self.searcher.on_trial_result(asked.name, result)
        assert not self.searcher.should_stop(asked.name, result)
        self.searcher.on_trial_complete(asked.name, result)

    def stop(self, asked: Asked, samples: int, distance: float) -> None:
        """Tune has stopped a run."""
        self.searcher.on_trial_complete(asked.name, self.result(samples, distance))

    def states(self) -> dict[int, TrialState]:
        """How each trial stands, by its number."""
        return {trial.number: trial.state for trial in self.study.get_trials(deepcopy=False)}
