"""What is particular to the other methods: optimisers, pairs, guidance, hidden labels, shared layers."""

from __future__ import annotations

import pytest
import torch
from small_methods import build, make_batch, small_config, small_network, view

from tract_ray.config import InputError
from tract_ray.diffusion import GuidedDenoiser
from tract_ray.distillation import copy_shared_layers, methods, num_classes
from tract_ray.networks import build_network


@pytest.mark.parametrize("kind", ["moment_matching", "moment_matching_instant"])
def test_moment_matching_optimiser_and_rate(kind: str) -> None:
    method = build(kind, small_config(kind, 5000, 8, lr=0.01))
    optimizer = method.optimizer("student", [torch.nn.Parameter(torch.zeros(1))])
    assert optimizer.defaults["betas"] == (0.0, 0.99)
    assert optimizer.defaults["eps"] == 1e-12
    # A tenth of this run is shorter than the paper's 1,000 steps of warm-up.
    rates = [method.learning_rate(step) for step in (0, 249, 499, 500, 2750, 4999)]
    assert rates == pytest.approx([0.01 / 500, 0.005, 0.01, 0.01, 0.005, 0.01 / 4500])


def test_btd_anneals_in_each_phase() -> None:
    method = build("progressive", small_config("progressive", 20))
    for phase in method.phases:
        method.start_phase(phase)
        assert [method.learning_rate(0), method.learning_rate(5)] == pytest.approx([1e-3, 5e-4])


def test_moment_matching_alternates_and_averages_the_generator_alone() -> None:
    method = build("moment_matching", small_config("moment_matching"))
    method.start_phase(method.phases[0])
    images = torch.zeros(8, 1, 8, 8)
    assert [method.active(step) for step in range(4)] == ["auxiliary", "student", "auxiliary", "student"]
    for step in range(4):
        method.after_step(make_batch(images, step=step))
    assert set(method.counters().values()) == {2}


@pytest.mark.parametrize("steps", [1, 2, 8, 16])
def test_a_generator_of_any_number_of_steps(steps: int) -> None:
    method = build("moment_matching", small_config("moment_matching", sampling_steps=steps))
    method.start_phase(method.phases[0])
    times = method.sampling_times(method.phase.student_steps)
    assert torch.equal(times, torch.arange(steps + 1, dtype=torch.float64) / steps)
    assert method.sample(method.trained["student"].module, torch.randn(2, 1, 8, 8), steps).shape == (2, 1, 8, 8)
    assert torch.isfinite(method.loss(make_batch(torch.zeros(8, 1, 8, 8), step=1))).all()


def test_moments_match_for_a_ve_teacher_too() -> None:
    for kind in ("moment_matching", "moment_matching_instant"):
        teacher = view("tract_edm", small_network())
        method = methods[kind](small_config(kind, weighting="edm"), teacher, small_network(seed=1))
        method.start_phase(method.phases[0])
        assert torch.isfinite(method.loss(make_batch(torch.zeros(8, 1, 8, 8)))).all()


def test_pairs_are_made_once_and_alike() -> None:
    images = torch.zeros(8, 1, 8, 8)
    first, second = (build("regression", small_config("regression")) for _ in range(2))
    for method in (first, second):
        method.start_phase(method.phases[0])
    assert torch.equal(first.loss(make_batch(images, seed=4)), second.loss(make_batch(images, seed=4)))
    teacher = first.modules()["teacher"]
    with torch.no_grad():
        for p in teacher.parameters():
            p.zero_()
    assert torch.equal(first.loss(make_batch(images, seed=5)), second.loss(make_batch(images, seed=5)))
    other = build("regression", small_config("regression", pairs_seed=1))
    assert not torch.equal(other.loss(make_batch(images, seed=4)), second.loss(make_batch(images, seed=4)))


def test_guidance_is_the_line_through_both_answers() -> None:
    plain = view("tract", small_network(num_classes=10))
    x, t, labels = torch.randn(4, 1, 8, 8), torch.tensor(0.4), torch.tensor([0, 3, 9, 1])
    conditional, unconditional = plain(x, t, labels), plain(x, t, torch.full((4,), -1))
    for scale in (0.0, 1.0, 2.5):
        guided = GuidedDenoiser(plain, scale)(x, t, labels)
        torch.testing.assert_close(guided, unconditional + scale * (conditional - unconditional))
    with pytest.raises(InputError, match="guidance"):
        GuidedDenoiser(plain, 2.0)(x, t)


def test_hidden_labels_are_their_share() -> None:
    method = build("denoising", small_config("denoising", 1, 4000, label_dropout=0.25), num_classes=10)
    seen: list[torch.Tensor] = []
    network = method.trained["student"].network
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    labels = torch.arange(4000) % 10
    method.loss(make_batch(torch.zeros(4000, 1, 8, 8), labels))
    hidden = seen[0] == -1
    assert 0.22 < float(hidden.float().mean()) < 0.28
    assert torch.equal(seen[0][~hidden], labels[~hidden])


def test_shared_layers_are_those_of_equal_name_and_shape() -> None:
    deep, shallow, narrow = small_network(0, 0, blocks=3), small_network(0, 1), small_network(0, 2, width=16)
    assert copy_shared_layers(deep, shallow) == len(shallow.state_dict())
    assert all(torch.equal(v, deep.state_dict()[k]) for k, v in shallow.state_dict().items())
    before = {k: v.clone() for k, v in narrow.state_dict().items()}
    count = copy_shared_layers(deep, narrow)
    changed = {k for k, v in narrow.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k, v in before.items() if v.shape == deep.state_dict()[k].shape}
    assert 0 < count == len(changed) < len(before)


@pytest.mark.parametrize("name", ["mlp_8x8", "unet_8x8", "edm_8x8"])
def test_classes_of_a_network(name: str) -> None:
    assert [num_classes(build_network(name, num_classes=classes)) for classes in (0, 7)] == [0, 7]


@pytest.mark.parametrize("name", ["unet_8x8", "edm_8x8"])
def test_instant_moment_matching_differentiates_every_network(name: str) -> None:
    ve = name.startswith("edm")
    teacher = view("tract_edm" if ve else "tract", build_network(name, seed=0))
    config = small_config("moment_matching_instant", weighting="edm" if ve else "truncated_snr")
    method = methods["moment_matching_instant"](config, teacher, build_network(name, seed=1))
    method.start_phase(method.phases[0])
    loss = method.loss(make_batch(torch.rand(8, 1, 8, 8)))
    assert torch.isfinite(loss).all()
    loss.sum().backward()
    assert all(p.grad is not None for p in method.trained["student"].module.parameters())
