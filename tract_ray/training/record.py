"""The record of a run: a file of JSON lines in the run's folder. MLflow is where it is shipped to (`tracking`).

Written beside the checkpoint and cut back with it, the record survives whatever kills the process or the server, and
a resumed run continues it without a gap or a repeated line. Lines are `{"samples": n, "time": t, "metrics": {…}}`,
with `"score": {…}` beside the metrics where they are those of a `MarkScore`, or `{…, "image": file, "name": name,
"content": checksum}` for a picture, and end with a `check` of what stands before it.
"""

from __future__ import annotations

import io
import json
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from tract_ray.files import DamagedError, append_text, sync, write_bytes, write_text

RECORD = "record.jsonl"
NAMES = {"samples", "time", "metrics", "score", "image", "name", "content"}
CHECK = ', "check": "'
BY_MU = ("distances", "reported")


def by_text(distances: Mapping[float, float]) -> dict[str, float]:
    """Distances by mu_i as JSON has them: each mu_i as the shortest text that reads as the same number."""
    return {repr(mu): distance for mu, distance in distances.items()}


def by_mu(distances: Mapping[Any, float] | None) -> dict[float, float]:
    """The inverse of `by_text`; {} for what an older version did not write."""
    return {float(mu): float(distance) for mu, distance in (distances or {}).items()}


@dataclass(frozen=True)
class MarkScore:
    """What a run scores at a mark: its best candidate's `distance` and `mu_i`, and `distances` of all by mu_i.

    `samples` are the images scored, made in `steps` network calls each. `noise` is the set that `distance` was measured
    on; `distances` are what the best was chosen by, `reported` those of fresh noise (`evaluation/noise.py`).
    """

    metric: str
    distance: float
    mu_i: float
    steps: int
    samples: int = 0
    noise: str = "select"
    distances: dict[float, float] = field(default_factory=dict)
    reported: dict[float, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, as a line of the record holds it."""
        return {**asdict(self), **{name: by_text(getattr(self, name)) for name in BY_MU}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MarkScore:
        """The inverse of `to_json`."""
        return cls(**{**data, **{name: by_mu(data.get(name)) for name in BY_MU}})

    def metrics(self) -> dict[str, float]:
        """The numbers of it that are drawn against images seen."""
        bank = {f"{self.metric}/mu_i_{mu!r}": d for mu, d in self.distances.items()}
        return {self.metric: self.distance, "mu_i_best": self.mu_i, "steps": self.steps, **bank}


class Record:
    """Appends to the record in `folder`; `lines` is how many it has."""

    def __init__(self, folder: Path, keep_lines: int = 0, enabled: bool = True) -> None:
        """Open the record, keeping its first `keep_lines` lines; a disabled one (ranks > 0) writes nothing."""
        self.folder, self.enabled = folder, enabled
        self.path = folder / RECORD
        self.lines = 0
        if enabled:
            kept = _complete(folder)[:keep_lines]
            check_record(folder, keep_lines)
            write_text(self.path, "".join(kept))  # at once: what was kept must survive a kill right here
            self.lines = len(kept)

    def _append(self, samples: int, content: Mapping[str, Any]) -> None:
        if self.enabled:
            append_text(self.path, _sealed({"samples": samples, "time": time.time(), **content}))
            self.lines += 1

    def sync(self) -> None:
        """Have all lines on the disk when this returns, as a checkpoint that counts them needs it."""
        if self.enabled:
            sync(self.path)

    def metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """Numbers at `samples` training images seen."""
        self._append(samples, {"metrics": dict(values)})

    def score(self, samples: int, score: MarkScore) -> None:
        """A score at `samples` training images seen."""
        self._append(samples, {"metrics": score.metrics(), "score": score.to_json()})

    def image(self, samples: int, name: str, picture: Image.Image) -> None:
        """A picture at `samples` training images seen."""
        if self.enabled:
            file = Path("images") / f"{name}-{samples:012d}.png"
            encoded = io.BytesIO()
            picture.save(encoded, format="png")
            write_bytes(self.folder / file, encoded.getvalue())
            self._append(samples, {"image": str(file), "name": name, "content": _check(encoded.getvalue())})


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The record in `folder`, [] where there is none; without a last line that is still being written.

    Raises `DamagedError` for a line that is not what was written.
    """
    return [_opened(line, folder, number) for number, line in enumerate(_complete(folder), 1)]


def check_record(folder: Path, lines: int) -> None:
    """Raise `DamagedError` unless the record in `folder` has so many lines, all as they were written."""
    path = folder / RECORD
    if path.exists() and not path.is_file():
        raise DamagedError(f"record: {path} is damaged (it is no file)")
    found = len([_opened(line, folder, number) for number, line in enumerate(_complete(folder)[:lines], 1)])
    if found < lines:
        raise DamagedError(f"record: {folder / RECORD} is damaged (it ends after line {found} of {lines})")


def check_pictures(folder: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Raise `DamagedError` unless the pictures that these lines of the record in `folder` name are as they were."""
    for line in lines:
        file = folder / line["image"]
        found = _check(file.read_bytes()) if file.is_file() else ""
        if not found or found != line.get("content", found):  # older records do not say it
            raise DamagedError(f"record: the picture {file} is damaged or missing")


def write_lines(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Replace the record in `folder`."""
    write_text(folder / RECORD, "".join(_sealed(line) for line in lines))


def read_scores(folder: Path) -> list[tuple[int, MarkScore]]:
    """The scores in a record, in order, each with the training images seen by then."""
    found = ((line["samples"], _score(line)) for line in read_lines(folder))
    return [(samples, score) for samples, score in found if score is not None]


def _score(line: Mapping[str, Any]) -> MarkScore | None:
    if "score" in line:
        return MarkScore.from_json(line["score"])
    values = line.get("metrics", {})
    if "mu_i_best" not in values:
        return None
    # Older records, and simulated ones, say it by names alone: the metric's comes first.
    metric, distance = next(iter(values.items()))
    return MarkScore(metric, distance, values["mu_i_best"], values["steps"])


def _complete(folder: Path) -> list[str]:
    path = folder / RECORD
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith("\n")]


def _sealed(content: Mapping[str, Any]) -> str:
    text = json.dumps(content).removesuffix("}")
    return f'{text}{CHECK}{_check(text)}"}}\n'


def _opened(text: str, folder: Path, number: int) -> dict[str, Any]:
    body, sealed, told = text.rpartition(CHECK)
    try:
        line = json.loads(text)
        whole = line.keys() - {"check"} <= NAMES and isinstance(line["samples"], int) and line["time"] >= 0
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole or (sealed and told != f'{_check(body)}"}}\n'):
        raise DamagedError(f"record: {folder / RECORD} is damaged in line {number}")
    line.pop("check", None)
    return dict(line)


def _check(content: str | bytes) -> str:
    return f"{zlib.crc32(content.encode() if isinstance(content, str) else content):08x}"
