"""Every loss against the slow computation of `reference.py`, at random times and at both ends of the schedule."""

from __future__ import annotations

import pytest
import torch
from reference import VE, VP, WEIGHTS, Image, Process, ddim, heun, noised, undo_ddim
from scripted import Scripted, agree, batch_of, build, error, rows, some_uniforms
from torch import nn


@pytest.mark.parametrize("weighting", WEIGHTS)
def test_denoising(weighting: str) -> None:
    method, _, student = build("denoising", weighting=weighting)
    draws, process = Scripted(some_uniforms(1)), VP()
    batch, images = batch_of(draws)
    loss = method.loss(batch)
    expected = [
        error(process, student, noised(process, x0, noise, t), t, x0, weighting)
        for x0, noise, t in zip(images, rows(draws.noises[0]), some_uniforms(1), strict=True)
    ]
    agree(loss, expected)


@pytest.mark.parametrize("kind", ["tract", "tract_edm"])
@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("clip_x0", ["none", "self_teacher", "all"])
def test_tract(kind: str, phase: int, clip_x0: str) -> None:
    method, teacher, student = build(kind, clip_x0=clip_x0)
    if phase == 1:
        method.start_phase(method.phases[1])
        teacher = method.teacher.network  # type: ignore[attr-defined]
        perturb = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in teacher.parameters():  # not the student's weights, so that a mix-up shows
                p += 0.1 * torch.randn(p.shape, generator=perturb, dtype=p.dtype)
    longest = method.phases[0].teacher_steps
    process: Process = VE() if kind == "tract_edm" else VP()
    nodes = process.nodes(longest) if isinstance(process, VE) else [n / longest for n in range(longest + 1)]
    nodes = nodes[:: longest // method.phase.teacher_steps]
    count, size = method.phase.student_steps, method.phase.group
    groups, offsets = [0, count - 1, 0, count - 1, count // 2, 0], [0, size - 1, size - 1, 0, 1, 1]
    draws = Scripted(groups, offsets)
    batch, images = batch_of(draws)
    loss = method.loss(batch)

    def x0(network: nn.Module, x: Image, t: float, clips: tuple[str, ...] = ("all",)) -> Image:
        value = process.x0(network, x, t)
        return [min(max(p, -1.0), 1.0) for p in value] if clip_x0 in clips else value

    expected = []
    for image, noise, group, offset in zip(images, rows(draws.noises[0]), groups, offsets, strict=True):
        start = group * size
        n = start + offset + 1
        t, before, t_i = nodes[n], nodes[n - 1], nodes[start]
        x_t = noised(process, image, noise, t)
        if kind == "tract_edm" and phase == 0:
            x = heun(lambda y, sigma: x0(teacher, y, sigma), x_t, t, before)
        else:
            x = ddim(process, x_t, x0(teacher, x_t, t), t, before)
        if n - 1 > start:
            x = ddim(process, x, x0(student, x, before, ("self_teacher", "all")), before, t_i)
        target = undo_ddim(process, x_t, x, t, t_i)
        expected.append(error(process, student, x_t, t, target, "edm" if kind == "tract_edm" else "truncated_snr"))
    agree(loss, expected)


def test_progressive() -> None:
    method, teacher, student = build("progressive")
    steps, process = [0, 3, 1, 2, 0, 3], VP()
    draws = Scripted(steps)
    batch, images = batch_of(draws)
    loss = method.loss(batch)
    expected = []
    for image, noise, step in zip(images, rows(draws.noises[0]), steps, strict=True):
        t, middle, s = (2 * step + 2) / 8, (2 * step + 1) / 8, 2 * step / 8
        x_t = noised(process, image, noise, t)
        x = ddim(process, x_t, process.x0(teacher, x_t, t), t, middle)
        x0 = process.x0(teacher, x, middle)
        target = x0 if step == 0 else undo_ddim(process, x_t, ddim(process, x, x0, middle, s), t, s)
        expected.append(error(process, student, x_t, t, target, "truncated_snr"))
    agree(loss, expected)


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_consistency(solver: str) -> None:
    method, teacher, student = build("consistency", ve=solver == "heun", solver=solver, weighting="snr_plus_one")
    process: Process = VE() if solver == "heun" else VP()
    nodes = process.nodes(16) if isinstance(process, VE) else [n / 16 for n in range(17)]
    steps = [0, 15, 1, 8, 11, 4]
    draws = Scripted(steps)
    batch, images = batch_of(draws)
    loss = method.loss(batch)
    expected = []
    for image, noise, step in zip(images, rows(draws.noises[0]), steps, strict=True):
        t, before = nodes[step + 1], nodes[step]
        x_t = noised(process, image, noise, t)
        target = process.x0(teacher, x_t, t)
        if step > 0:
            is_vp = solver == "ddim"
            x = (
                ddim(process, x_t, target, t, before)
                if is_vp
                else heun(lambda y, sigma: process.x0(teacher, y, sigma), x_t, t, before)
            )
            target = process.x0(student, x, before)
        expected.append(error(process, student, x_t, t, target, "snr_plus_one"))
    agree(loss, expected)


def test_regression() -> None:
    method, teacher, student = build("regression", pairs=0)
    draws, process = Scripted(), VP()
    batch, _ = batch_of(draws)
    loss = method.loss(batch)
    expected = []
    for noise in rows(draws.noises[0]):
        first = x = [process.sigma(1.0) * p for p in noise]
        for n in range(8, 0, -1):
            x = ddim(process, x, process.x0(teacher, x, n / 8), n / 8, (n - 1) / 8)
        expected.append(error(process, student, first, 1.0, x, "truncated_snr"))
    agree(loss, expected)
