"""A student whose architecture changes between phases, and phases of equal steps: against a computation by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_methods import make_batch, small_config, small_network, view
from torch import Tensor, nn

from tract_ray.config import InputError
from tract_ray.distillation import Distillation, copy_shared_layers, methods

WIDE, NARROW = {"width": 32}, {"width": 16}


def build(kind: str = "tract", **changes: Any) -> Distillation:
    """8,4,4,1: the phase of equal steps makes the student narrow."""
    own = {"time_schedule": (8, 4, 4, 1)} if kind == "tract" else {"start_steps": 8, "end_steps": 1}
    config = small_config(kind, 12, **{"mu_i": 0.5, **own, **changes})
    method = methods[kind](config, view(kind, small_network()), small_network(seed=1))
    assert isinstance(method, Distillation)

    def builder(options: dict[str, int]) -> Any:
        def new(source: nn.Module | None) -> nn.Module:
            network = small_network(seed=5, **options)
            if source is not None:
                copy_shared_layers(source, network)
            return network

        return new

    method.students = {0: builder(WIDE), 1: builder(NARROW)}
    return method


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def width(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def a_step(method: Distillation, step: int) -> None:
    with torch.no_grad():
        for p in method.student.module.parameters():
            p += 0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
    method.after_step(make_batch(torch.zeros(8, 1, 8, 8), step=step))


@pytest.mark.parametrize("kind", ["tract", "progressive"])
@pytest.mark.parametrize("keep", [False, True])
def test_what_a_new_architecture_begins_with(kind: str, keep: bool) -> None:
    """The teacher is the old student's average; the new student has what it shares with it; nothing is kept."""
    method = build(kind, keep_averages=keep, keep_optimizer=keep, student_init="continue" if keep else "teacher")
    method.start_phase(method.phases[0])
    for step in range(3):
        a_step(method, step)
    average = weights(method.inference[0.5].network)
    method.start_phase(method.phases[1])
    assert all(torch.equal(v, average[k]) for k, v in method.teacher.network.state_dict().items())
    assert width(method.student.module) < width(method.teacher.network)
    fresh = small_network(seed=5, **NARROW)
    assert 0 < copy_shared_layers(method.teacher.network, fresh) < len(average)
    own = weights(method.student.module)
    assert all(torch.equal(v, own[k]) for k, v in fresh.state_dict().items())
    for network in (n for name, n in method.modules().items() if name not in ("teacher", "student")):
        assert all(torch.equal(v, own[k]) for k, v in network.state_dict().items())
    assert all(count == 0 for count in method.counters().values())
    assert not method.optimizers_go_on(method.phases[1])
    assert method.trained["student"].module is method.student.module
    for step in range(2):
        a_step(method, step)
    method.start_phase(method.phases[2])
    assert method.optimizers_go_on(method.phases[2]) == keep
    assert width(method.teacher.network) == width(method.student.module) == width(fresh)


def test_a_phase_can_be_entered_from_any_other() -> None:
    """As a checkpoint is restored: the networks of a phase do not depend on where the method stood."""
    sizes = []
    for order in ((0, 1, 2), (2,), (1,), (2, 0, 1)):
        method = build()
        for index in order:
            method.set_phase(method.phases[index])
        sizes.append((order[-1], width(method.teacher.network), width(method.student.module)))
    assert sizes[0] == sizes[1]
    assert sizes[2] == sizes[3]
    assert sizes[2][1] > sizes[2][2] == sizes[1][1]


def test_a_step_of_the_equal_phase_by_hand() -> None:
    """One Adam step of 4 -> 4 into the narrow student: the target is the teacher's x0, from the formulas."""
    method = build(weighting="snr")
    method.start_phase(method.phases[0])
    a_step(method, 0)
    method.start_phase(method.phases[1])
    images = torch.rand((8, 1, 8, 8), generator=torch.Generator().manual_seed(2)) * 2 - 1
    batch = make_batch(images, seed=3)
    group = batch.draws.integers(4)  # which of the four steps
    assert not batch.draws.integers(1).any()  # a group has one step
    xi = batch.draws.normal((1, 8, 8))
    t = (group + 1).double() / 4
    first = math.atan(math.exp(-10))
    angle = (first + (math.atan(math.exp(10)) - first) * t).reshape(-1, 1, 1, 1)
    alpha, sigma = torch.cos(angle), torch.sin(angle)
    x_t = alpha * images.double() + sigma * xi
    logsnr = 2 * torch.log(alpha / sigma).flatten()

    def x0(network: nn.Module) -> Tensor:
        return alpha * x_t - sigma * network(x_t.float(), logsnr.float(), None).double()

    student = method.student.module
    expected = (alpha / sigma).flatten() ** 2 * (x0(student) - x0(method.teacher.network)).square().flatten(1).mean(1)
    found = method.loss(make_batch(images, seed=3))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)

    parameters = list(student.parameters())
    gradients = torch.autograd.grad(expected.mean(), parameters)
    by_hand = [
        p.detach() - method.config.lr * g / (g.abs() + 1e-8)  # Adam's first step: m / sqrt(v) is the sign, nearly
        for p, g in zip(parameters, gradients, strict=True)
    ]
    optimizer = method.optimizer("student", parameters)
    found.mean().backward()
    optimizer.step()
    for p, wanted in zip(parameters, by_hand, strict=True):
        torch.testing.assert_close(p.detach(), wanted, rtol=0, atol=2e-6)


def test_equal_steps_of_heun_teach_heun_s_step() -> None:
    """In a first phase 12 -> 12 the student's DDIM step lands where the EDM teacher's Heun step does."""
    config = small_config("tract_edm", time_schedule=(12, 12, 1))
    method = methods["tract_edm"](config, view("tract_edm", small_network()), small_network(seed=1))
    assert isinstance(method, Distillation)
    t, s = method.times[5].expand(2), method.times[4].expand(2)
    x = 3 * torch.randn((2, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma, then = t[0].item(), s[0].item()
    slope = (x - method.teacher(x, t)) / sigma
    euler = x + (then - sigma) * slope
    heun = x + (then - sigma) / 2 * (slope + (euler - method.teacher(euler, s)) / then)
    target = method.target(x, t, s, s, None)  # type: ignore[attr-defined]
    torch.testing.assert_close(target + then / sigma * (x - target), heun, rtol=0, atol=1e-6)


NODES = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)


def taught(kind: str, times: Tensor, **changes: Any) -> Distillation:
    """A method whose teacher is a student that knows `times`."""
    teacher = view(kind, small_network())
    teacher.times = times
    method = methods[kind](small_config(kind, **changes), teacher, small_network(seed=1))
    assert isinstance(method, Distillation)
    return method


@pytest.mark.parametrize(
    ("kind", "changes", "times"),
    [
        ("tract", {"time_schedule": (3, 1)}, NODES),
        ("tract_edm", {"time_schedule": (3, 1)}, torch.tensor([0.0, 0.1, 9.0, 80.0], dtype=torch.float64)),
        ("progressive", {"start_steps": 2, "end_steps": 1}, NODES[[0, 1, 3]]),
        ("consistency", {"teacher_steps": 3}, NODES),
        ("regression", {"teacher_steps": 3, "pairs": 0}, NODES),
    ],
)
def test_a_student_teaches_at_its_own_nodes(kind: str, changes: dict[str, Any], times: Tensor) -> None:
    """On either process, also where the schedule's nodes of so few steps would be others; only DDIM steps of it."""
    method = taught(kind, times, **changes)
    asked: list[float] = []
    network = method.teacher.network
    network.register_forward_pre_hook(lambda module, inputs: asked.extend(inputs[1].tolist()))
    method.start_phase(method.phases[0])
    for seed in range(4):
        method.loss(make_batch(torch.zeros(8, 1, 8, 8), seed=seed))
    known = {round(value, 4) for value in method.student.schedule.logsnr(times[1:]).tolist()}
    assert {round(value, 4) for value in asked} == known
    assert torch.equal(method.sampling_times(len(times) - 1), times)


@pytest.mark.parametrize("kind", ["tract", "consistency", "regression", "progressive"])
def test_a_student_teaches_no_other_schedule(kind: str) -> None:
    with pytest.raises(InputError, match=r"^teacher: is a student of 3 step\(s\) and can teach a schedule that begins"):
        taught(kind, NODES)


@pytest.mark.parametrize("kind", ["moment_matching", "moment_matching_instant"])
def test_moments_need_a_teacher_of_all_times(kind: str) -> None:
    with pytest.raises(InputError, match=rf"^teacher: {kind} asks its teacher at every time, .* student of 3 step"):
        taught(kind, NODES)
