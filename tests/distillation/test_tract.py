"""What happens between TRACT's phases, and what a student may be sampled with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from perfect_students import gaussian_teacher, perfect
from small_methods import build, make_batch, small_config, small_network, view

from tract_ray.config import InputError
from tract_ray.data import Dataset
from tract_ray.diffusion import GaussianDenoiser, GuidedDenoiser, sample_ddim
from tract_ray.distillation import Distillation, Tract, methods
from tract_ray.training import train

PHASED = ["tract", "tract_edm", "progressive"]


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def trained_for_a_phase(kind: str, **changes: object) -> Distillation:
    """A method whose student and averages have moved apart, at the end of its first phase."""
    config = small_config(kind, **{"mu_i": 0.9, **changes})
    method = build(kind, config)
    assert isinstance(method, Distillation)
    method.start_phase(method.phases[0])
    for step in range(3):
        with torch.no_grad():
            for p in method.student.module.parameters():
                p += 0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
        method.after_step(make_batch(torch.zeros(8, 1, 8, 8), step=step))
    return method


@pytest.mark.parametrize("kind", PHASED)
def test_the_next_teacher_is_the_inference_average(kind: str) -> None:
    method = trained_for_a_phase(kind)
    average, student = method.inference[0.9].network, method.student.module
    assert not same(average, student)
    method.start_phase(method.phases[1])
    assert same(method.teacher.network, average)
    assert same(method.student.module, average)
    assert method.student.module is student, "the loop has wrapped this very module"
    assert not any(p.requires_grad for p in method.teacher.network.parameters())
    assert all(count == 0 for count in method.counters().values())


def test_a_student_may_continue_while_its_teacher_changes() -> None:
    method = trained_for_a_phase("tract", student_init="continue")
    assert isinstance(method, Tract)
    before = {name: v.clone() for name, v in method.student.module.state_dict().items()}
    average = method.inference[0.9].network
    method.start_phase(method.phases[1])
    assert same(method.teacher.network, average)
    assert all(torch.equal(v, before[name]) for name, v in method.student.module.state_dict().items())
    assert same(method.self_teacher.network, method.student.module)


@pytest.mark.parametrize("kind", PHASED)
def test_a_smaller_student_teaches_the_next_phase(kind: str) -> None:
    method = build(kind, small_config(kind, mu_i=0.9), width=16)
    assert isinstance(method, Distillation)
    sizes = []
    for phase in method.phases[:2]:
        method.start_phase(phase)
        sizes.append(sum(p.numel() for p in method.teacher.network.parameters()))
    student = sum(p.numel() for p in method.student.module.parameters())
    assert sizes[0] > student == sizes[1]


def test_the_callers_teacher_stays_whole(digits: Dataset, tmp_path: Path) -> None:
    teacher = view("tract", small_network())
    network, before = teacher.network, {k: v.clone() for k, v in teacher.network.state_dict().items()}
    method = methods["tract"](small_config("tract"), teacher, small_network(seed=1))
    train(method, digits, seed=0, key="", folder=tmp_path)
    assert teacher.network is network
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_the_last_phase_carries_the_bank_and_names_its_own_mu_first() -> None:
    method = build("tract", small_config("tract", mu_i=0.9, mu_i_bank=(0.5, 0.99)))
    method.start_phase(method.phases[0])
    assert list(method.candidates()) == [0.9]
    method.start_phase(method.phases[1])
    assert list(method.candidates()) == [0.9, 0.5, 0.99]


def test_the_heuristic_takes_the_steps_of_the_phase() -> None:
    method = build("tract", small_config("tract", steps=40, phase_shares=(3.0, 1.0)))
    for phase, steps in zip(method.phases, (30, 10), strict=True):
        method.start_phase(phase)
        assert next(iter(method.candidates())) == pytest.approx(1e-3 ** (1 / steps))


@pytest.mark.parametrize("kind", PHASED)
def test_sampling_nodes_are_the_teachers(kind: str) -> None:
    method = build(kind, small_config(kind))
    longest = method.phases[0].teacher_steps
    nodes = method.sampling_times(longest)
    for phase in method.phases:
        times = method.sampling_times(phase.student_steps)
        assert len(times) == phase.student_steps + 1
        assert torch.equal(times, nodes[:: longest // phase.student_steps])
    with pytest.raises(InputError, match="5 does not divide"):
        method.sampling_times(5)


@pytest.mark.parametrize("kind", ["tract", "progressive"])
def test_a_perfect_student_samples_what_its_teacher_does(kind: str) -> None:
    config = small_config(kind, 12, 64)
    teacher = gaussian_teacher(kind)
    phase = methods[kind](config, teacher, small_network()).phases[0]
    method = perfect(kind, config, phase)
    noise = torch.randn((16, 1, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    student = method.trained["student"].module
    few = sample_ddim(
        method.trained["student"].view_of(student),
        noise,
        phase.student_steps,
        times=method.sampling_times(phase.student_steps),
        clip=False,
    )
    many = sample_ddim(teacher, noise, phase.teacher_steps, clip=False)
    # BTD's last step ends at the clean image, not at sigma_0 = 4.5e-5.
    torch.testing.assert_close(few, many, rtol=0, atol=1e-12 if kind == "tract" else 2e-4)


def test_heun_is_for_ve_teachers() -> None:
    for kind in ("tract", "consistency"):
        with pytest.raises(InputError, match=r"solver: .* ve_karras"):
            methods[kind](
                small_config(kind, solver="heun"),
                GaussianDenoiser(view("tract", small_network()).schedule),
                small_network(),
            )


def test_a_later_phase_is_not_guided_again() -> None:
    method = build("tract", small_config("tract", guidance=3.0), num_classes=10)
    assert isinstance(method, Tract)
    assert isinstance(method.teacher, GuidedDenoiser)
    method.start_phase(method.phases[0])
    method.start_phase(method.phases[1])
    assert not isinstance(method.teacher, GuidedDenoiser)
