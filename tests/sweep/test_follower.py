"""What the record says of a trial when it is over."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from studies import RUN, SPACE

from tract_ray.config import to_dict
from tract_ray.search.account import Entry
from tract_ray.search.jobs import Job, JobQueue
from tract_ray.search.rehearsal import Rehearsal
from tract_ray.search.study import Search, enqueue_anchors, sampler_for
from tract_ray.sweep.follower import Follower
from tract_ray.terminal import Progress


@dataclass
class Shipped:
    """A shipper that only notes how each run ends: its status and its numbers."""

    ends: dict[str, tuple[str, dict[str, float]]] = field(default_factory=dict)
    listener: Any = None

    def start(self) -> None: ...

    def watch(self, trial: str, folder: Path, params: dict[str, Any]) -> None: ...

    def end(self, trial: str, status: str, values: dict[str, float], tags: dict[str, str]) -> None:
        self.ends[trial] = (status, values)


def test_a_stopped_trial_has_no_distance(tmp_path: Path) -> None:
    """Its last score is of a student of more steps: sorted by distance, it would stand above every finished one."""
    study = optuna.create_study()
    for state, score in ((TrialState.COMPLETE, 30.0), (TrialState.PRUNED, 8.0)):
        trial = study.ask()
        trial.set_user_attr("changes", {})
        trial.report(score, 1)
        study.tell(trial, score if state == TrialState.COMPLETE else None, state=state)
        (tmp_path / f"trial-{trial.number:04d}").mkdir()
        config = {"key": "", "config": to_dict(RUN)}
        (tmp_path / f"trial-{trial.number:04d}" / "config.json").write_text(json.dumps(config))
    shipper = Shipped()
    with Progress("sweep", 2048, io.StringIO()) as progress:
        Follower(study, tmp_path, RUN, shipper, {}, progress).catch_up()  # type: ignore[arg-type]
    assert {name: (status, values.get("distance")) for name, (status, values) in shipper.ends.items()} == {
        "trial-0000": ("FINISHED", 30.0),
        "trial-0001": ("KILLED", None),
    }


def test_a_member_before_its_last_part_has_no_distance(tmp_path: Path) -> None:
    """Its score is of a student of many steps: MLflow would rank it above every finished one."""
    study = optuna.create_study()
    trial = study.ask()
    trial.set_user_attr("changes", {"method.mu_s_path": [0.5] * 4, "parts": 1})
    run = replace(RUN, method=replace(RUN.method, mu_s_path=(0.5,) * 4), parts=1)  # type: ignore[call-arg]
    job = Job(trial, 0, run, [], [], Entry({"stage": 256}, 256))
    shipper, said = Shipped(), io.StringIO()
    with Progress("sweep", 2048, said) as progress:
        follower = Follower(study, tmp_path, RUN, shipper, {}, progress)  # type: ignore[arg-type]
        follower.started(job)
        follower.ended(job, TrialState.COMPLETE, {"distance": 31.9, "samples": 256, "finished": True})
        assert follower.best is None
    status, values = shipper.ends["trial-0000"]
    assert (status, values.get("distance")) == ("FINISHED", None)
    assert "passed on" in said.getvalue()


def test_progress_is_what_the_account_foresees(tmp_path: Path) -> None:
    """Three trials of two seeds, of which halving stops two: it ends at all of what was seen, not at a share of it."""
    search = Search(trials=3, repeats=2, reduction=2, sampler="random")
    study = optuna.create_study(sampler=sampler_for(SPACE, search), pruner=search.build_pruner())
    enqueue_anchors(study, SPACE, search)
    queue = JobQueue(study, SPACE, RUN, search)
    assert queue.foreseen() == 3 * 2 * 1024
    totals: list[int] = []
    Rehearsal(score=lambda job: 1.0 + job.trial.number).run(queue, None, lambda queue: totals.append(queue.foreseen()))
    assert queue.account.total("samples") == 2 * 1024 + 2 * 768
    assert totals[-1] == queue.foreseen() == queue.account.total("samples")
    assert totals == sorted(totals, reverse=True)
