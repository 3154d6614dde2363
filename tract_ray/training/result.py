"""What a finished run has to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tract_ray.config import config_hash, require
from tract_ray.files import read_json, write_json
from tract_ray.training.run_config import RunConfig

RESULT = "result.json"


@dataclass(frozen=True)
class RunResult:
    """`distance` is that of `mu_i`, the `best` one of `distances` or the run's `own`, as `select` says.

    It is of fresh noise: `distances`, by mu_i, are of the noise on which the best one was chosen, and the least of
    them is too good to be reported. A run without a choice has one distance, which is both.

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

    def to_json(self) -> dict[str, Any]:
        """Plain data, also what `result.json` holds."""
        return {**asdict(self), "distances": {repr(mu): d for mu, d in self.distances.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunResult:
        """The inverse of `to_json`."""
        return cls(**{**data, "distances": {float(mu): d for mu, d in data["distances"].items()}})

    def report(self) -> dict[str, Any]:
        """The last report of a run: the score at its end, and what it has cost."""
        plain = self.to_json()
        score = ("samples", "distance", "mu_i", "distances")
        cost = ("trained", "device_seconds", "seconds", "parameters", "seconds_per_image")
        return {"finished": True, **{name: plain[name] for name in (*score, *cost)}}

    def save(self, folder: Path) -> None:
        """Write it into the run's folder, which is finished with that."""
        write_json(folder / RESULT, self.to_json())


def find_result(folder: Path, config: RunConfig) -> RunResult | None:
    """The result in a run's folder, None where the run is not finished; an `InputError` if it is of another run."""
    if not (folder / RESULT).is_file():
        return None
    result = RunResult.from_json(read_json(folder / RESULT, "output"))
    same = result.key == config_hash(config)
    require(same, "output", f"{folder} holds the result of another configuration; choose another")
    return result
