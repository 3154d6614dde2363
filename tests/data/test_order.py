"""The order of the data: every image once an epoch, whatever the batches."""

from __future__ import annotations

import pytest
import torch

from tract_ray.data import sample_indices


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_holds_every_image_once(size: int, epoch: int) -> None:
    rows = sample_indices(size, seed=3, start=epoch * size, count=size)
    assert sorted(rows.tolist()) == list(range(size))


@pytest.mark.parametrize("batch", [1, 32, 100, 256])
def test_the_order_does_not_depend_on_the_batches(batch: int) -> None:
    """A batch may cross an epoch's end, or be longer than the data set."""
    whole = sample_indices(100, seed=0, start=0, count=512)
    parts = [sample_indices(100, 0, first, min(batch, 512 - first)) for first in range(0, 512, batch)]
    assert torch.equal(torch.cat(parts), whole)


def test_epochs_and_seeds_differ() -> None:
    first, second = sample_indices(1000, 0, 0, 1000), sample_indices(1000, 0, 1000, 1000)
    assert not torch.equal(first, second)
    assert not torch.equal(first, sample_indices(1000, 1, 0, 1000))


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    rows = sample_indices(50, 9, 3, 20)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(sample_indices(50, 9, 3, 20), rows)


def test_no_samples() -> None:
    assert sample_indices(10, 0, 5, 0).shape == (0,)
