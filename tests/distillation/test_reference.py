"""Every loss against the slow computation of `reference.py`, at random times and at both ends of the schedule."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from reference import (
    VE,
    VP,
    WEIGHTS,
    Image,
    Process,
    ddim,
    each,
    heun,
    mean_square,
    noised,
    posterior,
    snr,
    undo_ddim,
)
from small_methods import small_config, small_network
from torch import Tensor, nn

from tract_ray.diffusion import Denoiser, build_schedule
from tract_ray.distillation import Batch, Draws, Method, methods

B = 6


class Scripted(Draws):
    """Draws that say what they are told to; `given` is asked for the next numbers in the order of the calls."""

    def __init__(self, *numbers: Sequence[float]) -> None:
        super().__init__(0, B)
        self.numbers = list(numbers)
        self.noises: list[Tensor] = []

    def uniform(self) -> Tensor:
        return torch.tensor(self.numbers.pop(0), dtype=torch.float64)

    def integers(self, high: int) -> Tensor:
        numbers = self.numbers.pop(0)
        assert max(numbers) < high
        return torch.tensor(numbers)

    def normal(self, shape: Sequence[int]) -> Tensor:
        self.noises.append(super().normal(shape).double())
        return self.noises[-1]


def build(kind: str, **changes: Any) -> tuple[Method, nn.Module, nn.Module]:
    """A method in double precision; its teacher's network; its student's, which the self-teacher's equals."""
    teacher, student = small_network(seed=0).double(), small_network(seed=1).double()
    ve = kind == "tract_edm" or changes.pop("ve", False)
    schedule = build_schedule("ve_karras" if ve else "vp_cosine")
    view = Denoiser(teacher.eval().requires_grad_(False), schedule, "edm" if ve else "v")
    method = methods[kind](small_config(kind, 12, B, **changes), view, student)
    method.start_phase(method.phases[0])
    return method, teacher, student


def batch_of(draws: Scripted, step: int = 0) -> tuple[Batch, list[Image]]:
    images = torch.rand((B, 1, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2 - 1
    return Batch(images, None, draws, step), [image.flatten().tolist() for image in images]


def rows(noise: Tensor) -> list[Image]:
    return [row.flatten().tolist() for row in noise]


def agree(loss: Tensor, expected: list[float]) -> None:
    assert loss.dtype == torch.float64
    assert loss.tolist() == pytest.approx(expected, rel=1e-7)


def error(process: Process, network: nn.Module, x: Image, t: float, target: Image, weighting: str) -> float:
    return WEIGHTS[weighting](snr(process, t)) * mean_square(process.x0(network, x, t), target)


def some_uniforms(seed: int) -> list[float]:
    """Random numbers of [0, 1), among them its ends."""
    return [0.0, 1 - 1e-6, *(random.Random(seed).random() for _ in range(B - 2))]


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
@pytest.mark.parametrize("clip_x0", [False, True])
def test_tract(kind: str, phase: int, clip_x0: bool) -> None:
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

    def x0(network: nn.Module, x: Image, t: float) -> Image:
        value = process.x0(network, x, t)
        return [min(max(p, -1.0), 1.0) for p in value] if clip_x0 else value

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
            x = ddim(process, x, x0(student, x, before), before, t_i)
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


def generated(draws: Scripted, images: list[Image], u: list[float], v: list[float], student: nn.Module) -> list[Any]:
    """`(x_t, t, x0, x_s, s)` of each sample, for the generator of four steps on the VP schedule."""
    process, made = VP(), []
    for image, noise, fresh, s, part in zip(images, *map(rows, draws.noises[:2]), u, v, strict=True):
        t = min(s + part / 4, 1.0)
        x_t = noised(process, image, noise, t)
        x0 = process.x0(student, x_t, t)
        made.append((x_t, t, x0, posterior(process, x_t, x0, fresh, t, s), s))
    return made


# s and t at the clean end, at the noisy one (t = 1, s near it), and t cut off at 1
U, V = [1e-3, 0.999, 0.9, 0.3, 0.55, 0.74], [0.9, 0.999, 0.8, 0.5, 0.2, 1e-3]


@pytest.mark.parametrize("step", [0, 1])
def test_moment_matching(step: int) -> None:
    method, teacher, student = build("moment_matching", weighting="truncated_snr")
    auxiliary = method.modules()["auxiliary"]
    with torch.no_grad():
        for p in auxiliary.parameters():
            p *= 1.1
    draws, process = Scripted(U, V), VP()
    batch, images = batch_of(draws, step)
    loss = method.loss(batch)
    expected = []
    for _, _, x0, x_s, s in generated(draws, images, U, V, student):
        weight = max(snr(process, s), 1.0)
        seen, taught = process.x0(auxiliary, x_s, s), process.x0(teacher, x_s, s)
        if step == 0:
            expected.append(weight * (mean_square(x0, seen) + mean_square(taught, seen)))
        else:
            expected.append(weight * sum(each(lambda p, q, r: p * (q - r), x0, seen, taught)) / len(x0))
    agree(loss, expected)
    trained, other = (auxiliary, student) if step == 0 else (student, auxiliary)
    loss.sum().backward()
    assert all(p.grad is not None for p in trained.parameters())
    assert all(p.grad is None for p in other.parameters())


def check_generator_gradient(
    loss: Tensor, student: nn.Module, made: list[Any], factor: Callable[[int], Image], tolerance: float = 1e-7
) -> None:
    """The loss's gradient is that of `sum_i factor_i . x0_i`: nothing flows but through the generator's x0."""
    process, total = VP(), torch.zeros((), dtype=torch.float64)
    for i, (x_t, t, _, _, _) in enumerate(made):
        x = torch.tensor(x_t, dtype=torch.float64).reshape(1, 1, 8, 8)
        v = student(x, torch.tensor([process.logsnr(t)], dtype=torch.float64), None)
        x0 = process.alpha(t) * x - process.sigma(t) * v
        total = total + (x0.flatten() * torch.tensor(factor(i), dtype=torch.float64)).sum()
    ours, theirs = (
        torch.cat([g.flatten() for g in torch.autograd.grad(value, list(student.parameters()))])
        for value in (loss.sum(), total)
    )
    assert float((ours - theirs).norm() / theirs.norm()) < tolerance


def test_moment_matching_gradient() -> None:
    method, teacher, student = build("moment_matching", weighting="truncated_snr")
    auxiliary = method.modules()["auxiliary"]
    with torch.no_grad():
        for p in auxiliary.parameters():
            p *= 1.1
    draws, process = Scripted(U, V), VP()
    batch, images = batch_of(draws, 1)
    loss = method.loss(batch)
    made = generated(draws, images, U, V, student)

    def factor(i: int) -> Image:
        x_s, s = made[i][3], made[i][4]
        weight = max(snr(process, s), 1.0) / 64
        return each(lambda p, q: weight * (p - q), process.x0(auxiliary, x_s, s), process.x0(teacher, x_s, s))

    check_generator_gradient(loss, student, made, factor)


def teacher_gradient(teacher: nn.Module, x0: Image, x_s: Image, s: float) -> Tensor:
    """Gradient of `w(s) |x0 - g(x_s)|^2` by all parameters of the teacher, for one sample, as one vector."""
    process, x = VP(), torch.tensor(x_s, dtype=torch.float64).reshape(1, 1, 8, 8)
    teacher.requires_grad_(True)
    v = teacher(x, torch.tensor([process.logsnr(s)], dtype=torch.float64), None)
    seen = (process.alpha(s) * x - process.sigma(s) * v).flatten()
    loss = max(snr(process, s), 1.0) * (seen - torch.tensor(x0, dtype=torch.float64)).square().mean()
    found = torch.autograd.grad(loss, list(teacher.parameters()))
    teacher.requires_grad_(False)
    return torch.cat([g.flatten() for g in found])


def test_moment_matching_instant() -> None:
    method, teacher, student = build("moment_matching_instant", weighting="truncated_snr")
    w = some_uniforms(5)
    draws, process = Scripted(U, V, w), VP()
    batch, images = batch_of(draws)
    loss = method.loss(batch)
    on_data = [
        teacher_gradient(teacher, x0, noised(process, x0, noise, s), s)
        for x0, noise, s in zip(images, rows(draws.noises[2]), w, strict=True)
    ]
    scale = 1 / (torch.stack(on_data).mean(0).abs() + 1e-8)  # after one update, Adam's root of v is |gradient|
    made = generated(draws, images, U, V, student)
    nu = torch.stack([teacher_gradient(teacher, x0, x_s, s) for _, _, x0, x_s, s in made])
    partners = [nu[1 - i % 2 :: 2].mean(0) for i in range(B)]
    agree(loss, [float(nu[i] @ (scale * partners[i])) for i in range(B)])

    def factor(i: int) -> Image:
        """Minus 2 w / pixels times the derivative of g along the scaled partner, by central differences."""
        x_s, s = made[i][3], made[i][4]
        direction, size = scale * partners[i], 1e-6
        original = torch.nn.utils.parameters_to_vector(teacher.parameters())
        values = []
        for sign in (1, -1):
            torch.nn.utils.vector_to_parameters(original + sign * size * direction, teacher.parameters())
            values.append(process.x0(teacher, x_s, s))
        torch.nn.utils.vector_to_parameters(original, teacher.parameters())
        weight = max(snr(process, s), 1.0)
        return each(lambda p, q: -2 * weight * (p - q) / (2 * size) / 64, *values)

    check_generator_gradient(loss, student, made, factor, tolerance=1e-4)
