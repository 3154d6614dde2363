"""What the record says of a trial when it is over."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from studies import RUN

from tract_ray.config import to_dict
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
