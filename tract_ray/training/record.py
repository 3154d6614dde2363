"""The record of a run: a file of JSON lines in the run's folder. MLflow is where it is shipped to (`tracking`).

Written beside the checkpoint and cut back with it, the record survives whatever kills the process or the server, and
a resumed run continues it without a gap or a repeated line. Lines are `{"samples": n, "time": t, "metrics": {…}}`,
or `{…, "image": file, "name": name}` for a picture.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from tract_ray.files import write_text

RECORD = "record.jsonl"


class Record:
    """Appends to the record in `folder`; `lines` is how many it has."""

    def __init__(self, folder: Path, keep_lines: int = 0, enabled: bool = True) -> None:
        """Open the record, keeping its first `keep_lines` lines; a disabled one (ranks > 0) writes nothing."""
        self.folder, self.enabled = folder, enabled
        self.path = folder / RECORD
        self.lines = 0
        if enabled:
            kept = _complete(folder)[:keep_lines]
            write_text(self.path, "".join(kept))  # at once: what was kept must survive a kill right here
            self.lines = len(kept)

    def _append(self, samples: int, content: Mapping[str, Any]) -> None:
        if self.enabled:
            with self.path.open("a") as file:
                file.write(json.dumps({"samples": samples, "time": time.time(), **content}) + "\n")
            self.lines += 1

    def metrics(self, samples: int, values: Mapping[str, float]) -> None:
        """Numbers at `samples` training images seen."""
        self._append(samples, {"metrics": dict(values)})

    def image(self, samples: int, name: str, picture: Image.Image) -> None:
        """A picture at `samples` training images seen."""
        if self.enabled:
            file = Path("images") / f"{name}-{samples:012d}.png"
            (self.folder / file).parent.mkdir(exist_ok=True)
            picture.save(self.folder / file)
            self._append(samples, {"image": str(file), "name": name})


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The record in `folder`, [] where there is none; without a last line that is still being written."""
    return [json.loads(line) for line in _complete(folder)]


def write_lines(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Replace the record in `folder`."""
    write_text(folder / RECORD, "".join(json.dumps(line) + "\n" for line in lines))


def scored_lines(folder: Path) -> list[dict[str, Any]]:
    """The scores in a record, in order: `samples`, `distance` (the best of its mark), `mu_i`."""
    found = []
    for line in read_lines(folder):
        values = line.get("metrics", {})
        if "mu_i_best" in values:
            distance = next(value for name, value in values.items() if name.startswith("fid_"))
            found.append({"samples": line["samples"], "distance": distance, "mu_i": values["mu_i_best"]})
    return found


def _complete(folder: Path) -> list[str]:
    path = folder / RECORD
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith("\n")]
