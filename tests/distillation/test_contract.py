"""What every method must do, whoever wrote it: found by the registry, tested alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from perfect_students import gaussian_teacher, perfect
from small_methods import SMALL, build, make_batch, other_settings, perturbed, small_config, small_network, view
from torch import nn

from tract_ray.config import InputError, from_dict, to_dict
from tract_ray.data import Dataset
from tract_ray.distillation import DistillationConfig, Method, MethodConfig, methods
from tract_ray.training import train
from tract_ray.training.gradients import Gradients
from tract_ray.training.loop import make_batch as data_batch
from tract_ray.training.worker import Worker

WITHOUT_TARGET = {"denoising", "moment_matching", "moment_matching_instant"}


@pytest.fixture(scope="module")
def teachers(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], nn.Module]:
    """A briefly trained network for each schedule."""
    known: dict[str, nn.Module] = {}

    def teacher(kind: str) -> nn.Module:
        schedule, prediction = ("ve_karras", "edm") if kind == "tract_edm" else ("vp_cosine", "v")
        if schedule not in known:
            weighting = "edm" if prediction == "edm" else "truncated_snr"
            config = small_config(
                "denoising", 300, 32, schedule=schedule, prediction=prediction, weighting=weighting, ema=0.9
            )
            method = methods["denoising"](config, None, small_network())
            train(method, digits, seed=0, key="", folder=tmp_path_factory.mktemp(schedule))
            known[schedule] = next(iter(method.candidates().values()))
        return known[schedule]

    return teacher


def test_its_loss_falls_on_digits(
    kind: str, digits: Dataset, teachers: Callable[[str], nn.Module], tmp_path: Path
) -> None:
    config = small_config(kind, 120, 32)
    teacher = teachers(kind)
    method = methods[kind](config, view(kind, teacher), perturbed(teacher, 0.1))
    method.start_phase(method.phases[0])

    def mean_loss(step: int) -> float:
        """Over fixed batches of the last phase; `step` is even, where methods of two networks train the second."""
        with torch.no_grad():
            losses = [method.loss(data_batch(method, digits, 9, step + 2 * k, Worker())) for k in range(4)]
        return float(torch.stack(losses).mean())

    before = mean_loss(method.phase.start)
    logged: list[float] = []
    first = method.phases[0].end

    class Stop(Exception):
        pass

    def stop_at_the_end_of_the_first_phase(step: int, record: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(
            method,
            digits,
            seed=0,
            key="",
            folder=tmp_path,
            marks=[first],
            on_mark=stop_at_the_end_of_the_first_phase,
            on_step=lambda _, loss: logged.append(loss),
        )
    assert torch.tensor(logged).isfinite().all()
    assert mean_loss(method.phase.start) < 0.7 * before


@pytest.mark.parametrize("phase", [0, -1])
def test_a_perfect_student_has_zero_loss(kind: str, phase: int) -> None:
    if kind in WITHOUT_TARGET:
        pytest.skip("this method has no target for each sample")
    config = small_config(kind, 12, 64)
    method = perfect(kind, config, methods[kind](config, gaussian_teacher(kind), nn.Identity()).phases[phase])
    images = 0.2 + 0.3 * torch.randn((64, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    loss = method.loss(make_batch(images, seed=1))
    assert loss.shape == (64,)
    assert float(loss.detach().abs().max()) < 1e-12


@pytest.mark.parametrize("settings", ["default", "other"])
def test_a_checkpoint_restores_it_exactly(kind: str, settings: str, digits: Dataset, tmp_path: Path) -> None:
    config = small_config(kind, **other_settings(kind) if settings == "other" else {})

    class Killed(Exception):
        pass

    def run(folder: str, killed_at: int | None = None) -> dict[str, torch.Tensor]:
        method = build(kind, config, dropout=0.1)

        def on_mark(step: int, record: object) -> None:
            if step == killed_at:
                raise Killed

        marks = list(range(1, method.phases[-1].end + 1))
        train(method, digits, seed=1, key="k", folder=tmp_path / folder, marks=marks, on_mark=on_mark)
        named = method.modules().items()
        return {f"{name}.{k}": v.clone() for name, module in named for k, v in module.state_dict().items()}

    whole = run("whole")
    for at in (3, 5):  # in the first phase, at the boundary or after it: by now two checkpoints were continued
        with pytest.raises(Killed):
            run("killed", at)
    resumed = run("killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_parts_of_a_batch_have_its_gradients(kind: str, digits: Dataset, tmp_path: Path) -> None:
    """All that is drawn for a sample is that of the undivided batch."""
    if not methods[kind].divisible:
        pytest.skip("this method compares the halves of a batch")
    found = []
    for micro_batch in (0, 2):
        method = build(kind, small_config(kind), num_classes=10)
        gradients = Gradients(method, tmp_path, Worker(), micro_batch)
        name = method.active(0)
        batch, loss = gradients.of(name, lambda method=method: data_batch(method, digits, 0, 0, Worker()), 0)
        assert len(batch.images) == 8
        parameters = method.trained[name].module.parameters()
        found.append(torch.cat([loss.reshape(1), *(p.grad.flatten() for p in parameters if p.grad is not None)]))
    assert float(found[0].abs().max()) > 1e-3
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-7)


def test_labels_pass_through(kind: str, digits: Dataset) -> None:
    fresh = {"pairs": 0} if kind == "regression" else {}  # otherwise its labels belong to its own pairs
    method = build(kind, small_config(kind, **fresh), num_classes=10)
    method.start_phase(method.phases[0])
    first, again, other = (data_batch(method, digits, 0, 0, Worker()) for _ in range(3))
    assert first.labels is not None
    assert other.labels is not None
    other.labels[:4] = (first.labels[:4] + 1) % 10
    loss, same, changed = (method.loss(batch) for batch in (first, again, other))
    assert torch.equal(same, loss)
    assert (changed[:4] != loss[:4]).all()
    if kind != "moment_matching_instant":  # there the halves of a batch meet
        assert torch.equal(changed[4:], loss[4:])


def test_it_samples_images_of_each_class(kind: str) -> None:
    method = build(kind, small_config(kind), num_classes=10)
    method.start_phase(method.phases[0])
    noise = torch.randn((3, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    network = next(iter(method.candidates().values()))
    steps = method.phase.student_steps if kind != "denoising" else 4
    images = method.sample(network, noise, steps, torch.tensor([0, 1, 2]))
    assert images.shape == noise.shape
    assert torch.isfinite(images).all()
    assert torch.allclose(method.sample(network, noise[1:2], steps, torch.tensor([1])), images[1:2], atol=1e-5)
    assert not torch.equal(method.sample(network, noise[1:2], steps, torch.tensor([2])), images[1:2])


def test_a_smaller_student_goes_through_all_phases(kind: str, digits: Dataset, tmp_path: Path) -> None:
    method = build(kind, small_config(kind), width=16)
    train(method, digits, seed=0, key="", folder=tmp_path)
    assert all(torch.isfinite(v).all() for module in method.modules().values() for v in module.state_dict().values())


def test_the_configuration_survives_as_plain_data(kind: str) -> None:
    for config in (methods[kind].config_type(), small_config(kind)):
        assert from_dict(MethodConfig, to_dict(config)) == config


def test_it_names_its_paper_and_needs_its_teacher(kind: str) -> None:
    method: type[Method] = methods[kind]
    assert "arXiv" in method.paper
    assert method.config_type.kind == method.kind == kind
    if method.needs_teacher:
        with pytest.raises(InputError, match="teacher"):
            method(small_config(kind), None, small_network())


def test_guidance_needs_a_conditional_teacher(kind: str) -> None:
    if not issubclass(methods[kind].config_type, DistillationConfig):
        pytest.skip("learns from no teacher")
    with pytest.raises(InputError, match="guidance"):
        build(kind, small_config(kind, guidance=2.0))
    plain, guided = (build(kind, small_config(kind, guidance=g), num_classes=10) for g in (1.0, 2.0))
    images, labels = torch.zeros(8, 1, 8, 8), torch.arange(8)
    losses = []
    for method in (plain, guided):
        method.start_phase(method.phases[0])
        step = 1 if kind == "moment_matching" else 0
        losses.append(method.loss(make_batch(images, labels, step=step)))
    assert (losses[0] != losses[1]).all()


def test_small_settings_name_registered_methods() -> None:
    assert set(SMALL) <= set(methods)
