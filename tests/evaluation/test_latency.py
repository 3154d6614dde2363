"""How long a sampler takes, told by a clock that only it moves."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from tract_ray.evaluation import latency


@pytest.mark.parametrize("conditional", [False, True])
def test_the_quickest_repetition_counts_and_the_first_call_does_not(
    conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of calls of 1, 9, 4 and 6 seconds the first warms up."""
    now, takes = 100.0, iter([1.0, 9.0, 4.0, 6.0])

    def sampler(noise: Tensor, labels: Tensor | None) -> Tensor:
        nonlocal now
        assert noise.shape == (8, 3, 2, 2)
        assert (labels is not None) == conditional
        now += next(takes)
        return noise

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    seconds = latency(sampler, (3, 2, 2), torch.device("cpu"), conditional=conditional, images=8)
    assert seconds == 4.0 / 8
    assert list(takes) == []
