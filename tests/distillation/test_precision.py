"""bf16 is the networks' alone: what is around them, and what is kept, stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_methods import build, make_batch, small_config
from torch import Tensor

from tract_ray.config import InputError
from tract_ray.data import Dataset
from tract_ray.distillation import methods
from tract_ray.training import precision, train
from tract_ray.training.keys import config_hash

IMAGES = torch.rand((8, 1, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
EPS = 2.0**-8  # of bfloat16


@pytest.mark.parametrize("kind", sorted(methods))
def test_every_loss_is_that_of_float32_to_bf16s_rounding(kind: str) -> None:
    """And is not it: the setting reaches every method's networks."""
    losses = {}
    for name in ("float32", "bf16"):
        method = build(kind, small_config(kind, precision=name))
        loss = method.loss(make_batch(IMAGES))
        loss.mean().backward()
        losses[name] = loss.detach().double()
        for denoiser in method.trained.values():
            assert all(p.grad is None or p.grad.dtype == torch.float32 for p in denoiser.module.parameters())
    difference = (losses["bf16"] - losses["float32"]).abs().mean() / losses["float32"].abs().mean()
    # The first step's preconditioner makes signs of gradients, which rounding turns where they are nearly zero.
    assert 0 < difference < (1 if kind == "moment_matching_instant" else 40 * EPS)


def test_weights_averages_and_samples_stay_in_float32(digits: Dataset, tmp_path: Path) -> None:
    method = build("tract", small_config("tract", precision="bf16", mu_i_bank=(0.0, 0.5, 0.9)))
    train(method, digits, seed=0, key="", folder=tmp_path)
    for module in method.modules().values():
        assert {t.dtype for t in module.state_dict().values()} == {torch.float32}
    network = next(iter(method.candidates().values()))
    noise = torch.randn((4, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    plain = build("tract", small_config("tract"))
    plain.start_phase(plain.phases[-1])
    assert torch.equal(method.sample(network, noise, 1), plain.sample(network, noise, 1))


def test_a_batch_in_bf16_has_another_key() -> None:
    assert config_hash(small_config("tract", precision="bf16")) != config_hash(small_config("tract"))


def test_the_network_sees_bf16_and_its_surroundings_do_not() -> None:
    method = build("tract", small_config("tract", precision="bf16"))
    seen: list[torch.dtype] = []
    layer = next(m for m in method.student.module.modules() if isinstance(m, torch.nn.Linear))
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    x0: Tensor = method.student(IMAGES.double(), torch.full((8,), 0.5, dtype=torch.float64))
    assert (seen, x0.dtype) == ([torch.bfloat16], torch.float64)


def test_a_device_without_bf16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    for ask in (precision.check_precision, precision.resolve_precision):
        with pytest.raises(InputError, match="precision: this processor has no bf16 arithmetic, train in float32"):
            ask("bf16", cpu)
    assert precision.resolve_precision("auto", cpu) == "float32"
    assert precision.resolve_precision("float32", cpu) == "float32"
    with pytest.raises(InputError, match="precision"):
        precision.resolve_precision("fp8", cpu)
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    precision.check_precision("bf16", cpu)
