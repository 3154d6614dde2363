"""What a finished run has to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tract_ray.config import InputError, config_hash, require
from tract_ray.files import DamagedError, read_json, write_json
from tract_ray.training.keys import UNREAD, data_key, planned_start, teacher_folder
from tract_ray.training.paths import Paths
from tract_ray.training.record import BY_MU, by_mu, by_text
from tract_ray.training.run_config import RunConfig

RESULT = "result.json"


@dataclass(frozen=True)
class RunResult:
    """`distance` is that of `mu_i`, the `best` one of `distances` or the run's `own`, as `select` says.

    It is of fresh noise: `distances`, by mu_i, are of the noise on which the best one was chosen, and the least of
    them is too good to be reported. So is that of the best of several runs: those are compared by their `selection`.
    `start` and `data` are the keys of what it began with and of its data set.
    `reported` are distances of fresh noise, by mu_i: that of `mu_i`, or all (`EvaluationConfig.report`).

    `steps` are network calls for a sample of the student. `trained` counts the images that this run trained itself, of
    `samples`: the others came with stages that were there. `device_seconds` is the time of all its workers, evaluation
    included; `seconds` that of the last call alone. `evaluation` names what the distance is of.
    """

    metric: str
    distance: float
    mu_i: float
    distances: dict[float, float]
    steps: int
    samples: int
    parameters: int
    seconds_per_image: float
    trained: int
    seconds: float
    device_seconds: float
    student: str
    key: str
    evaluation: dict[str, Any]
    select: str = "best"
    reported: dict[float, float] = field(default_factory=dict)
    start: str = ""
    data: str = ""

    @property
    def selection(self) -> float:
        """The distance that this run is compared with others by."""
        return self.distances.get(self.mu_i, self.distance)

    def to_json(self) -> dict[str, Any]:
        """Plain data, also what `result.json` holds."""
        return {**asdict(self), **{name: by_text(getattr(self, name)) for name in BY_MU}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunResult:
        """The inverse of `to_json`."""
        return cls(**{**data, **{name: by_mu(data.get(name)) for name in BY_MU}})

    def report(self) -> dict[str, Any]:
        """The last report of a run: the score at its end, and what it has cost."""
        plain = self.to_json()
        score = ("samples", "distance", "mu_i", "distances", "reported")
        cost = ("trained", "device_seconds", "seconds", "parameters", "seconds_per_image")
        told = {name: plain[name] for name in (*score, *cost)}
        return {"finished": True, "selection": self.selection, **told}

    def save(self, folder: Path) -> None:
        """Write it into the run's folder, which is finished with that."""
        write_json(folder / RESULT, self.to_json())


def find_result(folder: Path, config: RunConfig, paths: Paths) -> RunResult | None:
    """The result in a run's folder, None where the run is not finished; an `InputError` if it is of another run.

    That is one of another configuration, or of other data or another teacher than this machine now has under their
    names. What is not here (a cache that was cleared) cannot be compared, and is not asked for.
    """
    if not (folder / RESULT).exists():
        return None
    try:
        result = RunResult.from_json(read_json(folder / RESULT, "output"))
    except DamagedError as error:
        raise DamagedError(f"{error}; remove it, and the run is finished again") from None
    same = result.key == config_hash(config)
    require(same, "output", f"{folder} holds the result of another configuration; choose another")
    start, data = _now(config, paths)
    changed = "data set" if data not in ("", result.data) else "teacher" if start not in ("", result.start) else ""
    require(
        not (changed and result.start),
        "output",
        f"{folder} holds the result of another {changed} than is there now; choose another",
    )
    return result


def _now(config: RunConfig, paths: Paths) -> tuple[str, str]:
    """The keys of what the run would begin with now, and of its data; "" for what is not here."""
    folder = teacher_folder(config.teacher, paths)
    here = (folder / "config.json").is_file()
    try:
        (start, _), name = planned_start(config, paths)
    except InputError:  # damaged: nothing can be said of it
        return "", ""
    data = data_key(name, paths.data_root) if here or config.teacher.path is None else UNREAD
    return (start if here else "", data) if not data.startswith(UNREAD) else ("", "")
