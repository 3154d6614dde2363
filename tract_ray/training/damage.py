"""What is damaged is set aside, said in one line, and made again: nobody reads it twice, and no number changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from tract_ray.files import DamagedError, set_aside
from tract_ray.training.checkpoint import CHECKPOINT, read_checkpoint
from tract_ray.training.model import load_model
from tract_ray.training.notes import note
from tract_ray.training.record import RECORD, check_record
from tract_ray.training.worker import Worker

Checkpoint = tuple[dict[str, Any], Mapping[str, Tensor]]
T = TypeVar("T")
BEST = "best"


def undamaged(read: Callable[[], T], put_away: Callable[[], Path], folder: Path, worker: Worker) -> T | None:
    """What `read` finds; None, for all workers, where one of them finds it damaged.

    It is then set aside by `put_away`, and said in the notes of the run in `folder`.
    """
    content, damage = None, ""
    try:
        content = read()
    except DamagedError as error:
        damage = str(error)
    damages = [told for told in worker.gather(damage) if told]
    if not damages:
        return content
    if worker.leads:
        note(folder, f"{damages[0]}; it is kept as {put_away().name} and trained again")
    worker.gather(None)  # nobody looks for it before it is away
    return None


def sound_checkpoint(folder: Path, key: str, worker: Worker) -> Checkpoint | None:
    """The checkpoint of the run in `folder`; None where there is none, or where what goes on from it is damaged.

    That is its record, and the best model so far of a method that keeps it.
    """

    def read() -> Checkpoint | None:
        found = read_checkpoint(folder / CHECKPOINT, key)
        if worker.leads:
            check_record(folder, found[0]["record_lines"] if found else 0)
            if found and (folder / BEST).exists():
                load_model(folder / BEST, "checkpoint")
        return found

    return undamaged(read, lambda: _put_away(folder), folder, worker)


def _put_away(folder: Path) -> Path:
    """Set aside all that a run would go on from: none of it is worth anything without the rest."""
    aside = [set_aside(folder / name) for name in (CHECKPOINT, RECORD, BEST) if (folder / name).exists()]
    return aside[0]
