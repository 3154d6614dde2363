"""What a sweep is, and what it has found when it is over."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tract_ray.analysis.ledger import Ledger
from tract_ray.analysis.rows import TrialRow
from tract_ray.cluster.resources import Request
from tract_ray.cluster.trial import run_trial
from tract_ray.config import require
from tract_ray.search.samplers import check_sampler
from tract_ray.search.space import Space
from tract_ray.search.study import Search
from tract_ray.training import Paths, RunConfig, Score, find_teacher
from tract_ray.training.keys import data_key


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep script hands over. `question` is the sentence it asks; `run` is what every trial starts from.

    At most `concurrency` trials run at once, 0: as many as fit. What a machine fails is tried again, `retries` times.
    A cluster on which none fits may get further nodes within `wait_for_nodes` seconds, one that has no CPU yet within
    five minutes at least. `warm_start` names earlier sweeps that the sampler learns from. The teacher is scored at
    `reference_steps`, to be compared with; without any, at its own and at few (`reference_steps` of
    `training/teacher.py`).
    """

    experiment: str
    question: str
    space: Space
    run: RunConfig
    name: str
    search: Search = field(default_factory=Search)
    warm_start: tuple[str, ...] = ()
    request: Request = field(default_factory=Request)
    concurrency: int = 0
    retries: int = 3
    wait_for_nodes: float = 0.0
    resume: bool = False
    paths: Paths
    mlflow_uri: str
    ray_address: str | None = None
    reference_steps: tuple[int, ...] = ()
    trainable: Callable[[dict[str, Any]], None] = run_trial

    def __post_init__(self) -> None:
        require(
            bool(re.fullmatch(r"\w[\w.-]*", self.name)), "name", f"{self.name!r} has more than letters, digits and ._-"
        )
        check_sampler(self.search.sampler, self.space.suggest, objectives=len(self.search.objectives))
        count, trials = self.space.count, self.search.trials
        require(count in (None, trials), "trials", f"this population is of {count} trials, not {trials}")
        require(count is None or not self.warm_start, "warm-start", "a population goes on from its own members only")
        require(self.wait_for_nodes >= 0, "wait-for-nodes", f"must not be negative, got {self.wait_for_nodes}")
        require(self.concurrency >= 0, "concurrency", f"must not be negative, got {self.concurrency}")
        require(self.retries >= 0, "retries", f"must not be negative, got {self.retries}")
        require(
            self.run.method.batch % self.request.workers == 0,
            "workers-per-trial",
            f"a batch of {self.run.method.batch} does not divide among {self.request.workers} workers",
        )

    @property
    def measured(self) -> dict[str, Any]:
        """What its distances are of: numbers of other images or features are not to be compared with them."""
        teacher = find_teacher(self.run.teacher, self.paths)
        dataset = (teacher.dataset if teacher else "") or self.run.teacher.dataset
        evaluation = self.run.evaluation.on(dataset)
        about = {"metric": evaluation.metric, "features": evaluation.features, "images": evaluation.samples}
        content = data_key(dataset, self.paths.data_root)
        return {"data set": dataset, "content": content, **about, "select": evaluation.select, "noise": "select"}

    @property
    def folder(self) -> Path:
        """Everything of this sweep: its study, its trials, its plots."""
        return self.paths.storage / "sweeps" / self.name


@dataclass(frozen=True)
class SweepResult:
    """What `run_sweep` returns and `summary.json` holds. `failed` are names of trials, `parent_run` is MLflow's id."""

    name: str
    rows: list[TrialRow]
    reference: list[Score]
    parent_run: str
    failed: list[str]
    ledger: Ledger
    verdict: str = ""
