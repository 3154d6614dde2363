"""One of the processes of a run."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tract_ray.config import require


@dataclass(frozen=True)
class Worker:
    """Rank `rank` of `world` processes on `device`. With one, nothing is communicated."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to the outside."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over all workers."""
        if self.world == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the argument's new name is not in every torch we accept
            return DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)

    def mean(self, value: Tensor) -> Tensor:
        """Mean of `value` over the workers, on each of them."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.world
        return value

    def gather(self, value: Any) -> list[Any]:
        """Every worker's `value`, in rank order, on each of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def agree(self, so: bool) -> bool:
        """Whether it is so on all workers. Each may have looked at a file that another process was just making."""
        return all(self.gather(so))

    def share(self, total: int) -> tuple[int, int]:
        """This worker's part of `total` items: (first, count)."""
        first, end = self.rank * total // self.world, (self.rank + 1) * total // self.world
        return first, end - first


def check_batch(batch: int, workers: int) -> None:
    """Refuse a batch that does not divide among the workers of a run."""
    require(batch % workers == 0, "batch", f"{batch} does not divide among {workers} workers")


def default_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
