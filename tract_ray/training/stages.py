"""Stages: a run is teacher -> phase 1 -> phase 2 -> …, and each phase has the hash of what determines it as its key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from tract_ray.config import config_hash, to_dict
from tract_ray.distillation import Phase, methods, phase_at
from tract_ray.training.run_config import RunConfig

FORMAT = 1  # raised when what a phase computes changes, so that older stages are not found any more


@dataclass(frozen=True)
class Stage:
    """Optimiser steps `start … end - 1` of a run: a phase, or a part of one.

    `key` determines the weights at its end, `scored` the scores on its way as well.
    """

    phase: Phase
    start: int
    end: int
    samples: int
    key: str
    scored: str


def stage_ends(config: RunConfig) -> list[int]:
    """Numbers of finished optimiser steps at which the stages of a run end: those of its phases and of its parts."""
    method = config.method
    parts = method.part_ends()
    last = parts[config.parts - 1] if config.parts else method.steps
    return sorted(end for end in {*(phase.end for phase in method.phases()), *parts} if end <= last)


def run_samples(config: RunConfig) -> int:
    """Training images of the run, if it trained all of its stages itself."""
    return stage_ends(config)[-1] * config.method.batch


def stages_of(config: RunConfig) -> list[Stage]:
    """The stages of a run, first to last; each key holds its parent's.

    It takes about 0.2 ms a stage, so callers need not keep it; the weights of a model folder are hashed only once.
    """
    kind, method = methods[config.method.kind], config.method
    parent = config_hash(
        {
            "format": FORMAT,
            "teacher": _content(config.teacher.path) if config.teacher.path else to_dict(config.teacher),
            "student": to_dict(config.student),
            "student_from": (
                config.student_from if config.student_from in ("teacher", "random") else _content(config.student_from)
            ),
            "seed": config.seed,
        }
    )
    phases, stages = method.phases(), list[Stage]()
    for begin, end in pairwise([0, *stage_ends(config)]):
        phase = phase_at(phases, begin)
        parent = config_hash([parent, kind.determines(method, phase, begin, end)])
        last = end == phases[-1].end
        evaluation = to_dict(config.evaluation)
        if not (last or kind.keeps_best):
            del evaluation["samples"]
        scored = config_hash([parent, evaluation, kind.handover(method, phase), last])
        key = scored if kind.keeps_best else parent
        stages.append(Stage(phase, begin, end, (end - begin) * method.batch, key, scored))
        if end == phase.end:
            parent = config_hash([parent, kind.handover(method, phase)])
    return stages


def _content(folder: str) -> str:
    """A hash of a model folder's weights, wherever it lies; of its name where there are none yet."""
    file = Path(folder).expanduser().absolute() / "model.safetensors"
    return _file_hash(file, file.stat().st_mtime_ns) if file.is_file() else folder


@lru_cache(maxsize=64)
def _file_hash(file: Path, modified: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
