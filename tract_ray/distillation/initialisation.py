"""The start of a student whose architecture is not its teacher's."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def copy_shared_layers(source: nn.Module, target: nn.Module) -> int:
    """Copy every parameter and buffer of `source` that `target` has under the same name and shape; returns how many."""
    theirs = source.state_dict()
    shared = {name: t for name, t in target.state_dict().items() if name in theirs and theirs[name].shape == t.shape}
    for name, tensor in shared.items():
        tensor.copy_(theirs[name])
    return len(shared)
