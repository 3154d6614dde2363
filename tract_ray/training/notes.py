"""What a run has to say to a person beside its record: lines that are printed, and kept in its folder."""

from __future__ import annotations

import sys
from pathlib import Path

from tract_ray.files import open_end

NOTES = "notes.txt"


def note(folder: Path, text: str) -> None:
    """Print a line, and keep it: what a trial prints on a cluster, nobody sees."""
    print(text, file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    with open_end(folder / NOTES) as file:
        file.write(text + "\n")


def read_notes(folder: Path) -> list[str]:
    """The lines that the run in `folder` has kept."""
    file = folder / NOTES
    return file.read_text(errors="replace").splitlines() if file.is_file() else []
