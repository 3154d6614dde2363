"""Moment matching, losses and gradients, against the slow computation of `reference.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import VP, Image, each, mean_square, noised, posterior, snr
from scripted import B, Scripted, agree, batch_of, build, rows, some_uniforms
from torch import Tensor, nn


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
        """Minus 4 w / pixels times the derivative of g along the scaled partner: both factors move."""
        x_s, s = made[i][3], made[i][4]
        direction, size = scale * partners[i], 1e-6
        original = torch.nn.utils.parameters_to_vector(teacher.parameters())
        values = []
        for sign in (1, -1):
            torch.nn.utils.vector_to_parameters(original + sign * size * direction, teacher.parameters())
            values.append(process.x0(teacher, x_s, s))
        torch.nn.utils.vector_to_parameters(original, teacher.parameters())
        weight = max(snr(process, s), 1.0)
        return each(lambda p, q: -4 * weight * (p - q) / (2 * size) / 64, *values)

    check_generator_gradient(loss, student, made, factor, tolerance=1e-4)
