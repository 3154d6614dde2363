"""Where finished stages are kept, under their keys.

Two runs that share a prefix train it once, at the same time or years apart: the first to need a stage claims it and
trains, the others wait for it.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from tract_ray.config import InputError
from tract_ray.distillation import Method
from tract_ray.files import (
    DamagedError,
    atomic_folder,
    copy_file,
    made_again,
    read_json,
    read_safetensors,
    set_aside,
    write_json,
)
from tract_ray.training.checkpoint import CHECKPOINT, Position, optimizer_tensors, read_state, save_checkpoint
from tract_ray.training.claims import claim
from tract_ray.training.notes import note
from tract_ray.training.paths import Paths
from tract_ray.training.record import check_pictures, read_lines, write_lines
from tract_ray.training.run_config import RunConfig
from tract_ray.training.scoring import BEST_BANK
from tract_ray.training.stages import Stage, stages_of
from tract_ray.training.worker import Worker

STATE = "state.safetensors"
BESIDE = ("best", BEST_BANK, "averages")  # folders of a run that belong to its last phase


class StageStore:
    """The finished stages of all runs: folders with the weights, the record and the pictures of one phase each."""

    def __init__(self, paths: Paths) -> None:
        self.paths: Paths | None = paths
        self.folder = paths.cache / "stages"

    def stages_of(self, run: RunConfig) -> list[Stage]:
        """The stages of a run that is not built yet, under the keys that it will find."""
        return stages_of(run, self.paths)

    def path(self, stage: Stage) -> Path:
        """Where the stage is, or will be."""
        return self.folder / stage.key

    def has(self, stage: Stage) -> bool:
        """Whether the stage is finished."""
        return (self.path(stage) / "stage.json").is_file()

    def claim(self, stage: Stage, worker: Worker) -> AbstractContextManager[bool]:
        """Yields True where the stage is there, or False with the right to train it (`claims.py`)."""
        return claim(self.folder / f"{stage.key}.lock", lambda: self.has(stage), worker)

    def publish(self, stage: Stage, method: Method, run: Path, seconds: float) -> None:
        """Keep the stage that `method` has just ended in the folder `run`."""
        first, last = (step * method.config.batch for step in (stage.start, stage.end))
        lines = [line for line in read_lines(run) if first < line["samples"] <= last]
        place = self.path(stage)
        if place.exists() and not self.has(stage):
            note(run, made_again(place, f"stage: {place} is damaged (it does not say what it is)", "trained again"))
        with atomic_folder(self.path(stage), keep=True) as new:
            if stage.end == stage.phase.end:
                optimizers = optimizer_tensors(run / CHECKPOINT) if _optimizers_go_on(method, stage) else {}
                at = Position(step=stage.end)
                save_checkpoint(new / STATE, method, {}, at, stage.key, boundary=True, more=optimizers)
            else:  # a part: its optimisers go on
                copy_file(run / CHECKPOINT, new / STATE)
            write_lines(new, lines)
            for line in lines:
                if "image" in line:
                    (new / line["image"]).parent.mkdir(exist_ok=True)
                    copy_file(run / line["image"], new / line["image"])
            for name in BESIDE:
                if (run / name).is_dir():
                    shutil.copytree(run / name, new / name, copy_function=copy_file)
            about = {
                **asdict(stage),
                "lines": len(lines),
                "seconds": seconds,
            }
            write_json(new / "stage.json", about)

    def read(self, stage: Stage) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The state at the end of a stage, and its tensors. Raises `DamagedError`."""
        folder = self.path(stage)
        try:
            about, (state, tensors) = read_json(folder / "stage.json", "stage"), read_state(folder / STATE, "stage")
            lines = read_lines(folder)
            for name in BESIDE:
                for file in (folder / name).rglob("*.safetensors"):
                    read_safetensors(file, "stage")
                for file in (folder / name).rglob("*.json"):
                    read_json(file, "stage")
            whole = len(lines) == about["lines"] and "scored" in about
        except DamagedError:
            raise
        except (InputError, KeyError) as error:
            raise DamagedError(f"stage: {folder} is damaged ({error})") from None
        if not whole:
            raise DamagedError(f"stage: {folder} is damaged (a part of its record is missing)")
        check_pictures(folder, [line for line in lines if "image" in line])
        return state, tensors

    def set_aside(self, stage: Stage) -> Path:
        """Take a damaged stage out of everybody's way; returns where it is now."""
        return set_aside(self.path(stage))

    def copy_record(self, stage: Stage, run: Path, batch: int) -> int:
        """Put the stage's record and pictures into the folder `run`, after what came before; returns its lines.

        Scores are left out where they are of other averages or of another evaluation than the run asks for; that at
        the stage's end may be, where those on its way are not.
        """
        before = [line for line in read_lines(run) if line["samples"] <= stage.start * batch]
        own, end = self.scored_alike(stage), stage.end * batch
        alike = read_json(self.path(stage) / "stage.json", "stage").get("on_the_way") == stage.on_the_way
        lines = [
            line
            for line in read_lines(self.path(stage))
            if own or "loss" in line.get("metrics", {}) or (alike and line["samples"] < end)
        ]
        for line in lines:
            if "image" in line:
                (run / line["image"]).parent.mkdir(exist_ok=True)
                copy_file(self.path(stage) / line["image"], run / line["image"])
        for name in BESIDE:
            if (self.path(stage) / name).is_dir():
                shutil.copytree(self.path(stage) / name, run / name, copy_function=copy_file, dirs_exist_ok=True)
        write_lines(run, [*before, *lines])
        return len(before) + len(lines)

    def scored_alike(self, stage: Stage) -> bool:
        """Whether the scores that were kept with the stage are those that `stage` asks for."""
        return bool(read_json(self.path(stage) / "stage.json", "stage")["scored"] == stage.scored)


def _optimizers_go_on(method: Method, stage: Stage) -> bool:
    """Whether the phase after that of `stage`, if there is one, begins with its optimisers' moments."""
    following = method.phases[stage.phase.index + 1 : stage.phase.index + 2]
    return any(method.optimizers_go_on(phase) for phase in following)
