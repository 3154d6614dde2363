"""What every importer returns, and the check that its weights are exactly the network's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tract_ray.config import InputError
from tract_ray.diffusion import Denoiser, build_schedule, predictions, teacher_sampling
from tract_ray.networks.presets import build_network


@dataclass(frozen=True, kw_only=True)
class ImportedTeacher:
    """A network of ours with weights from elsewhere, and the process it was trained on.

    `network` and `options` are `build_network`'s, `shape` is `(C, H, W)`, `schedule` and `prediction` are names of
    `tract_ray.diffusion`. `times` (its nodes) and `sampler` are those of what is a student already; without, a teacher
    is sampled as its process asks for (`teacher_sampling`).
    """

    network: str
    options: Mapping[str, Any]
    shape: tuple[int, int, int]
    num_classes: int
    schedule: str
    prediction: str
    state_dict: Mapping[str, Tensor] = field(repr=False)
    times: tuple[float, ...] | None = None
    sampler: str | None = None

    @property
    def sampling(self) -> tuple[str, int]:
        """The sampler that it is made for, and its steps."""
        sampler, steps = teacher_sampling(self.schedule, self.shape[-1])
        return self.sampler or sampler, len(self.times) - 1 if self.times else steps

    def _empty(self) -> nn.Module:
        return build_network(
            self.network,
            self.shape,
            num_classes=self.num_classes,
            out_multiplier=predictions[self.prediction].channels,
            options=self.options,
        )

    def build(self) -> nn.Module:
        """The network with its weights, in evaluation mode."""
        network = self._empty()
        network.load_state_dict(dict(self.state_dict))
        return network.eval()

    def denoiser(self) -> Denoiser:
        """The x0 view of `build()`."""
        return Denoiser(self.build(), build_schedule(self.schedule), self.prediction)

    def checked(self) -> ImportedTeacher:
        """Itself, if the weights fit the network; else an `InputError` that names the first tensor that does not."""
        with torch.device("meta"):
            expected = {name: tuple(value.shape) for name, value in self._empty().state_dict().items()}
        for name, shape in expected.items():
            if name not in self.state_dict:
                raise InputError(f"teacher: weight {name} {list(shape)} of {self.network} is missing from the file")
            found = tuple(self.state_dict[name].shape)
            if found != shape:
                raise InputError(f"teacher: weight {name} has shape {list(found)}, {self.network} needs {list(shape)}")
        for name in self.state_dict:
            if name not in expected:
                raise InputError(f"teacher: {self.network} has no weight {name}, but the file does")
        return self
