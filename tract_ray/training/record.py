"""The record of a run: a file of JSON lines in the run's folder. MLflow is where it is shipped to (`tracking`).

Written beside the checkpoint and cut back with it, the record survives whatever kills the process or the server, and
a resumed run continues it without a gap or a repeated line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image


class Record:
    """Appends to `folder/record.jsonl`: lines `{"samples": n, "time": t, "metrics": {…}}`, or with an `image`."""

    def __init__(self, folder: Path, keep_lines: int = 0, enabled: bool = True) -> None:
        """Open the record, keeping its first `keep_lines` lines; a disabled one (ranks > 0) writes nothing."""
        self.folder, self.enabled = folder, enabled
        self.path = folder / "record.jsonl"
        self.lines = 0
        if enabled:
            folder.mkdir(parents=True, exist_ok=True)
            kept = self.path.read_text().splitlines(keepends=True)[:keep_lines] if self.path.exists() else []
            self.path.write_text("".join(kept))
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
