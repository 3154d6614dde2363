"""Stages: a run is teacher -> phase 1 -> phase 2 -> …, and each phase has the hash of what determines it as its key."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tract_ray.config import config_hash
from tract_ray.distillation import Phase, methods, phase_at
from tract_ray.training.keys import Start, evaluation_content, network_content, planned_start
from tract_ray.training.paths import Paths
from tract_ray.training.run_config import RunConfig


@dataclass(frozen=True)
class Stage:
    """Optimiser steps `start … end - 1` of a run: a phase, or a part of one.

    `key` determines the weights at its end, `on_the_way` the scores before its end as well, `scored` all of them.
    """

    phase: Phase
    start: int
    end: int
    samples: int
    key: str
    on_the_way: str
    scored: str


def stage_ends(config: RunConfig) -> list[int]:
    """Numbers of finished optimiser steps at which the stages of a run end: those of its phases and of its parts."""
    method = config.method
    parts = method.part_ends()
    last = parts[config.parts - 1] if config.parts else method.steps
    return sorted(end for end in {*(phase.end for phase in method.phases()), *parts} if end <= last)


def stages_of(config: RunConfig, paths: Paths | None = None) -> list[Stage]:
    """The stages of a run that is not built yet, as far as can be told from the files at `paths` (`planned_start`).

    It takes about 0.2 ms a stage, so callers need not keep it; the weights of a model folder are hashed only once.
    """
    return stages_from(config, *planned_start(config, paths))


def stages_from(config: RunConfig, start: Start, dataset: str) -> list[Stage]:
    """The stages of a run, first to last, from what it begins with (`start_of`) on data named `dataset`.

    A key holds all that came before: the phases, what each handed to the next, and the parts of the stage's own phase,
    of which neighbours with equal settings are one.
    """
    kind, method = methods[config.method.kind], config.method
    parent, phases, stages = start.key, method.phases(), list[Stage]()
    parts: list[tuple[dict[str, Any], int]] = []
    ends = stage_ends(config)
    for begin, end in pairwise([0, *ends]):
        phase = phase_at(phases, begin)
        settings = {k: v for k, v in kind.determines(method, phase, begin, end).items() if k != "steps"}
        if begin == phase.start:
            parts, new = [], _brought(config, phase, start.student)
            parent = config_hash([parent, new]) if new else parent
        elif parts[-1][0] == settings:
            parts.pop()
        parts.append((settings, end))
        weights = config_hash([parent, parts])
        on_the_way, scored = (
            config_hash(
                [
                    *(weights, begin, kind.handover(method, phase), last),
                    evaluation_content(config.evaluation, dataset, last=last, whole=kind.keeps_best),
                ]
            )
            for last in (False, end == ends[-1])
        )
        key = scored if kind.keeps_best else config_hash([weights, begin])
        stages.append(Stage(phase, begin, end, (end - begin) * method.batch, key, on_the_way, scored))
        if end == phase.end:
            parent = config_hash([weights, kind.handover(method, phase)])
    return stages


def _brought(config: RunConfig, phase: Phase, first: dict[str, Any]) -> list[dict[str, Any]]:
    """The architecture that `phase` begins with, where it is another than that of the phase before it."""
    named = [network_content(network) if network else None for network in config.students[1 : phase.index + 1]]
    if not named or named[-1] is None:
        return []
    before = [first, *(network for network in named[:-1] if network)][-1]
    return [named[-1]] if named[-1] != before else []
