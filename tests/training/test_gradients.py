"""A batch that does not fit into memory is computed in parts, with the result of the whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tract_ray.config import InputError, MachineFailed
from tract_ray.data import load_dataset
from tract_ray.distillation import Denoising, DenoisingConfig
from tract_ray.networks import build_network
from tract_ray.training import train
from tract_ray.training.gradients import check_micro_batch, out_of_memory
from tract_ray.training.notes import read_notes

CONFIG = DenoisingConfig(samples=96, batch=16, lr=1e-3, label_dropout=0.3)


class Small(nn.Module):
    """A network on a machine whose memory holds so many images of it; `raises` says how that machine fails."""

    def __init__(self, holds: int, raises: type[Exception] = torch.OutOfMemoryError, times: int = 1 << 30) -> None:
        super().__init__()
        options = {"width": 16, "blocks": 1, "embedding": 16, "dropout": 0.2}
        self.network = build_network("mlp_8x8", num_classes=10, options=options, seed=0)
        self.num_classes, self.holds, self.raises, self.times = 10, holds, raises, times

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        if self.training and len(x) > self.holds and self.times:
            self.times -= 1
            raise self.raises("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")
        out: Tensor = self.network(x, *rest)
        return out


def trained(folder: Path, network: nn.Module, **changes: Any) -> tuple[Tensor, list[float]]:
    """The weights after six steps, and the loss of each."""
    losses = list[float]()
    data = load_dataset("digits")
    method = Denoising(CONFIG, None, network)
    train(method, data, seed=0, key="k", folder=folder, on_step=lambda _, loss: losses.append(loss), **changes)
    return nn.utils.parameters_to_vector(network.parameters()).detach(), losses


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, list[float]]:
    return trained(tmp_path_factory.mktemp("whole"), Small(16))


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_parts_change_nothing_but_rounding(whole: tuple[Tensor, list[float]], tmp_path: Path, micro_batch: int) -> None:
    """With dropout, whose masks are the whole batch's."""
    weights, losses = trained(tmp_path, Small(micro_batch), micro_batch=micro_batch)
    assert (weights - whole[0]).abs().max() < 1e-5
    assert losses == pytest.approx(whole[1], rel=1e-5)
    assert (whole[0] - nn.utils.parameters_to_vector(Small(1).parameters())).abs().max() > 1e-3  # it did learn
    assert not read_notes(tmp_path)


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_what_does_not_fit_is_halved(whole: tuple[Tensor, list[float]], tmp_path: Path, kind: type[Exception]) -> None:
    """Until it fits, and once for all: an interrupted run goes on with what was found, to the same weights."""
    weights, _ = trained(tmp_path / "run", Small(5, kind))
    said = [f"memory: {n} images at a time do not fit; going on with {n // 2}" for n in (16, 8)]
    assert read_notes(tmp_path / "run") == said
    assert torch.equal(weights, trained(tmp_path / "asked", Small(4), micro_batch=4)[0])
    trained(tmp_path / "stopped", Small(5, kind), until=2, marks=[2])
    assert torch.equal(weights, trained(tmp_path / "stopped", Small(16))[0])
    assert (weights - whole[0]).abs().max() < 1e-5


def test_not_even_one_image_fits(tmp_path: Path) -> None:
    with pytest.raises(MachineFailed, match=r"^memory: not even one image fits into that of cpu \(.*can't allocate"):
        trained(tmp_path, Small(0))


def test_other_errors_are_no_lack_of_memory(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        trained(tmp_path, Small(4, ValueError))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize(
    ("micro_batch", "workers", "kind", "line"),
    [
        (5, 1, "tract", "5 does not divide a batch of 16 images"),
        (3, 2, "tract", "3 does not divide a worker's share of 8 images"),
        (8, 1, "moment_matching_instant", "moment_matching_instant compares the halves of a whole batch; leave it out"),
    ],
)
def test_parts_are_equal(micro_batch: int, workers: int, kind: str, line: str) -> None:
    with pytest.raises(InputError) as caught:
        check_micro_batch(micro_batch, 16, workers, kind != "moment_matching_instant", kind)
    assert str(caught.value) == f"micro-batch: {line}"
    check_micro_batch(16, 16, 1, False, kind)
