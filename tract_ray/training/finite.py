"""Divergence ends a run at the next logged step; no step waits for the device to find out."""

from __future__ import annotations

import torch
from torch import Tensor

from tract_ray.config import RunFailed
from tract_ray.distillation import Method, MethodConfig
from tract_ray.training.worker import Worker


class LossWatch:
    """The mean loss between two logged steps, and whether it is finite.

    A single bad batch ends the run, unless the configuration replaces what is not finite in its gradients, or skips
    it: then the mean is that of the others, and only a stretch without any finite loss ends it.
    """

    def __init__(self, config: MethodConfig, total: float, count: int, device: torch.device) -> None:
        self.skips = config.skip_nonfinite
        self.tolerant = config.skip_nonfinite or config.replace_nonfinite
        self.total, self.count = torch.tensor(total, device=device), torch.tensor(float(count), device=device)
        self.bad = torch.zeros((), device=device)

    def step(self, loss: Tensor, norm: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Take in the local `loss` of a step, and the `norm` of its gradients, which all workers share."""
        if not self.tolerant:
            self.total += loss
            self.count += 1
            return
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        self.total += torch.where(finite, loss, 0)
        self.count += finite
        self.bad += ~finite
        if self.skips:  # what a gradient scaler sets: torch's fused optimisers then leave everything as it is
            optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]

    def mean(self, worker: Worker, step: int, optimizer: torch.optim.Optimizer) -> float:
        """The mean since the last call, over all workers; raises `RunFailed` where it is not finite."""
        value = float(worker.mean(self.total / self.count))
        self.total.zero_()
        self.count.zero_()
        if value - value != 0:
            rate = optimizer.param_groups[0]["lr"]
            raise RunFailed(f"loss is not finite at step {step} (lr {rate:g})")
        return value

    def counts(self) -> dict[str, float]:
        """For the record: the batches so far whose loss or gradient was not finite."""
        return {"nonfinite_batches": float(self.bad)} if self.tolerant else {}

    def so_far(self) -> tuple[float, int]:
        """Sum and number of the losses that the next mean is of."""
        return float(self.total), int(self.count)


def check_weights(method: Method, step: int) -> None:
    """Raise `RunFailed` where a network that the method makes is not finite: nothing of it is scored or kept."""
    for name, module in method.modules().items():
        tensors = [t.detach() for t in module.state_dict().values() if t.is_floating_point()]
        if tensors and not bool(torch.isfinite(torch.stack(torch._foreach_norm(tensors))).all()):
            raise RunFailed(f"weights of {name} are not finite after step {step} (lr {method.config.lr:g})")
