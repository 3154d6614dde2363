"""What a run computes, told step by step: an account of its own, which knows nothing of how keys are made.

`ends_of` walks through the optimiser steps of a run and writes down, for each, everything that the step reads. Two runs
have come to the same where their walks have read the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from tract_ray.training import RunConfig

Method = Any  # the configuration of any method
AVERAGES = {"mu_i", "mu_i_last", "mu_i_residual", "mu_i_bank", "mu_i_bank_phases", "mu_i_snapshots"}
CARRIED = {"student_init", "keep_optimizer", "keep_averages"}
LENGTHS = {"samples", "time_schedule", "phase_shares", "start_steps", "end_steps", "updates_per_phase", "boundary"}
RATES = {"lr", "lr_decay", "lr_path", "warmup", "mu_s", "mu_s_path", "preconditioner_steps"}
BEST = {"moment_matching", "moment_matching_instant"}  # the result is the best evaluation's


def digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def schedule(method: Method) -> list[tuple[int, int, int, int]]:
    """(start, end, teacher's steps, student's steps) of each phase, by hand."""
    steps = method.samples // method.batch
    if method.kind in ("consistency", "regression"):
        return [(0, steps, method.teacher_steps, 1)]
    if method.kind in BEST:
        return [(0, steps, method.sampling_steps, method.sampling_steps)]
    if method.kind == "progressive":
        nodes = [method.start_steps]
        while nodes[-1] > method.end_steps:
            nodes.append(nodes[-1] // 2)
    else:
        nodes = list(method.time_schedule)
    count = len(nodes) - 1
    shares = method.phase_shares or [1] * count
    ends = [0] + [round(steps * sum(shares[: k + 1]) / sum(shares)) for k in range(count)]
    if getattr(method, "boundary", "exact") == "after":
        ends = [0] + [k * steps // count + 1 for k in range(1, count)] + [steps]
    return [(ends[k], ends[k + 1], nodes[k], nodes[k + 1]) for k in range(count)]


def own_mu(method: Method, phases: list[tuple[int, int, int, int]], index: int) -> float:
    if index == len(phases) - 1 and method.mu_i_last is not None:
        return float(method.mu_i_last)
    if method.mu_i is not None:
        return float(method.mu_i)
    start, end, _, _ = phases[index]
    late = getattr(method, "boundary", "exact") == "after"
    updates = (method.samples // method.batch) / len(phases) if late else end - start
    return float(method.mu_i_residual ** (1 / updates))


def part_ends(method: Method) -> list[int]:
    count = max(len(getattr(method, "lr_path", ())), len(getattr(method, "mu_s_path", ())))
    return [round((method.samples // method.batch) * (k + 1) / count) for k in range(count)]


def of_path(method: Method, name: str, step: int) -> float:
    path = getattr(method, f"{name}_path", ())
    if not path:
        return float(getattr(method, name, 0.0))
    return float(path[sum(step >= end for end in part_ends(method))])


def rate(method: Method, step: int, start: int, end: int) -> float:
    """Learning rate of the run's optimiser step `step`, in a phase from `start` to `end`."""
    length, inside, lr = end - start, step - start, of_path(method, "lr", step)
    if method.kind in BEST:
        warmup = min(method.warmup, length // 10)
        return lr * (inside + 1) / warmup if inside < warmup else lr * (length - inside) / (length - warmup)
    risen = min(1.0, (step + 1) / method.warmup) if method.warmup else 1.0
    return lr * (risen * (1 - inside / length if method.lr_decay == "linear" else 1.0))


def constants(method: Method, count: int) -> list[Any]:
    """The settings that every step of a run of `count` phases reads."""
    without = AVERAGES | LENGTHS | RATES | (CARRIED if count == 1 else set())
    if method.kind == "regression" and method.pairs == 0:
        without = without | {"pairs_seed"}  # there are none
    names = sorted(f.name for f in dataclasses.fields(method) if f.name not in without)
    return [(name, number(getattr(method, name))) for name in names]


def number(value: Any) -> Any:
    """1 and 1.0 are the same setting."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def ends_of(run: RunConfig, start: Any, data: str, networks: Sequence[str] = ()) -> list[tuple[str, str]]:
    """For each stage: what identifies what it keeps, and what identifies its scores.

    `start` identifies teacher, data, student and its first weights; `data` is the data set's name; `networks` names the
    student of each phase, where they were asked for.
    """
    method: Method = run.method
    phases = schedule(method)
    carries = len(phases) > 1 and (method.student_init == "continue" or method.keep_optimizer or method.keep_averages)
    kind = method.kind.removesuffix("_edm")  # TRACT with other defaults
    state, found = digest(start, run.seed, kind, constants(method, len(phases)), phases[0][2]), []
    ends = sorted({end for _, end, _, _ in phases} | set(part_ends(method)))
    if run.parts:
        ends = [end for end in ends if end <= part_ends(method)[run.parts - 1]]
    for index, (begin, end, long, short) in enumerate(phases):
        last, own = index == len(phases) - 1, own_mu(method, phases, index)
        bank = method.mu_i_bank if last or method.mu_i_bank_phases == "all" else ()
        carried = sorted({own, *map(float, bank)})
        state = digest(state, begin, end, long, short, carried, method.mu_i_snapshots if last else 0)
        state = digest(state, last) if carries else state  # more is kept where another phase follows
        if index and networks and networks[index] != networks[index - 1]:
            state = digest(state, "another network", networks[index])
        first = begin
        for step in range(begin, end):
            measured = getattr(method, "preconditioner_steps", 0) > step
            read = step, rate(method, step, begin, end), of_path(method, "mu_s", step), measured
            state = digest(state, read)
            if step + 1 in ends:
                scores = digest(state, first, scored_by(run, step + 1 == ends[-1]), own, data)
                found.append((scores if method.kind in BEST else digest(state, first), scores))
                first = step + 1
        state = digest(state, own)
    return found


def scored_by(run: RunConfig, last: bool) -> tuple[Any, ...]:
    """What the scores of a stage depend on, beside the networks."""
    e, best = run.evaluation, run.method.kind in BEST
    counts = (e.samples if last or best else None, None if best else e.rung_samples)
    elsewhere = {"features", "samples", "rung_samples"} | (set() if last and not best else {"report"})
    others = [getattr(e, f.name) for f in dataclasses.fields(e) if f.name not in elsewhere]
    return (e.features or "classifier", counts, others, last)
