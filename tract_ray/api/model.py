"""A model to sample from, to look at and to keep: what `distill`, `train_teacher` and `load_model` return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tract_ray import training
from tract_ray.api.machine import worker_on
from tract_ray.config import check_seed, require
from tract_ray.evaluation import fixed_noise, image_grid
from tract_ray.evaluation.sample_grid import grid_scale
from tract_ray.networks import count_parameters
from tract_ray.training import RunResult, Worker

BATCH = 256  # images that are sampled at once
MAX_IMAGES, MAX_SHOWN = 10_000_000, 10_000
SHOWN_STEPS = 64  # of a teacher in a notebook's picture


class Model:
    """A teacher or a student on a device. In a notebook it shows sixteen of its samples.

    `network` is the model itself, for what is not offered here; `folder` is where it lies, None where nowhere yet;
    `result` is what its run had to show, for a student that was just distilled.
    """

    def __init__(
        self, network: training.Model, worker: Worker, folder: Path | None = None, result: RunResult | None = None
    ) -> None:
        self.network, self.worker, self.folder, self.result = network.to(worker.device), worker, folder, result

    @property
    def steps(self) -> int:
        """Steps of its sampler, unless told otherwise."""
        return self.network.steps

    @property
    def sampler(self) -> str:
        """The sampler that it is made for: ddim, euler, heun or ancestral."""
        return self.network.sampler

    @property
    def nfe(self) -> int:
        """Network calls for an image in its own steps."""
        return self.network.nfe()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its images."""
        return self.network.shape

    @property
    def num_classes(self) -> int:
        """Classes that it can be asked for; 0 for an unconditional model."""
        return self.network.num_classes

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return count_parameters(self.network.denoiser.module)

    @property
    def metric(self) -> str | None:
        """What `distance` is of (`fid_digits`, …); None where it was never scored."""
        return self.network.about.get("metric")

    @property
    def distance(self) -> float | None:
        """Distance of its samples to the data as its run measured it; smaller is better. None: never scored."""
        return self.network.about.get("distance")

    @property
    def mu_i(self) -> float | None:
        """The inference average that a student is."""
        return self.network.about.get("mu_i")

    @property
    def distances(self) -> dict[float, float]:
        """Distance by mu_i of all averages that the run scored; empty for a model that was loaded."""
        return dict(self.result.distances) if self.result else {}

    def sample(
        self,
        count: int = 16,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        sampler_settings: Mapping[str, float] | None = None,
        seed: int = 0,
        labels: int | Sequence[int] | Tensor | None = None,
    ) -> Tensor:
        """Images `(count, C, H, W)` in [-1, 1], on the CPU, in `steps` of `sampler` (default: its own).

        `sampler_settings` are the sampler's, as `{"s_churn": 40}` is heun's. The noise is a function of `seed` alone:
        models that are asked with one seed answer the same noise. `labels` is one class for all or one for each;
        without them a conditional model makes its classes in turn.

        >>> import tract_ray as tr
        >>> student = tr.distill("digits", **tiny)
        >>> student.sample(4, steps=1).shape
        torch.Size([4, 1, 8, 8])
        """
        require(1 <= count <= MAX_IMAGES, "count", f"must be from 1 to {MAX_IMAGES:,}, got {count}")
        check_seed("seed", seed)
        network, device = self.network.resampled(steps, sampler, sampler_settings), self.worker.device
        chosen = self._labels(count, labels)
        parts = []
        for first in range(0, count, BATCH):
            size = min(BATCH, count - first)
            noise = fixed_noise(seed, first, size, self.shape).to(device)
            own = None if chosen is None else chosen[first : first + size].to(device)
            parts.append(network.sample(noise, own).cpu())
        return torch.cat(parts)

    def grid(self, count: int = 64, *, columns: int = 8, **how: Any) -> Image.Image:
        """A picture of samples, enlarged to be seen; `how` is what `sample` takes."""
        require(1 <= columns <= MAX_SHOWN, "columns", f"must be from 1 to {MAX_SHOWN:,}, got {columns}")
        require(count <= MAX_SHOWN, "count", f"a picture shows at most {MAX_SHOWN:,} images, got {count}")
        return image_grid(self.sample(count, **how), columns, grid_scale(self.shape[-1]))

    def save(self, folder: str | Path) -> Path:
        """Write the model folder (`model.safetensors` and `config.json`); returns its path."""
        return self.network.save(Path(folder).expanduser())

    def _labels(self, count: int, labels: int | Sequence[int] | Tensor | None) -> Tensor | None:
        classes = self.num_classes
        if not classes:
            require(labels is None, "label", "this model is not class-conditional")
            return None
        if labels is None:
            return torch.arange(count) % classes
        chosen = torch.as_tensor(labels, dtype=torch.int64)
        chosen = chosen.expand(count) if chosen.ndim == 0 else chosen
        require(chosen.shape == (count,), "labels", f"one for each of {count} images, got {tuple(chosen.shape)}")
        wrong = [int(label) for label in chosen if not 0 <= label < classes]
        require(not wrong, "label", f"must be in 0..{classes - 1}, got {wrong[:1] and wrong[0]}")
        return chosen

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        steps = SHOWN_STEPS if self.network.times is None and self.steps > SHOWN_STEPS else None
        self.grid(16, steps=steps).save(buffer, format="png")
        return buffer.getvalue()

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        parts = [self.network.network.name, f"{self.parameters:,} parameters", size, f"{self.steps} step(s)"]
        if self.distance is not None:
            parts.append(f"{self.metric} {self.distance:.4g}")
        return f"Model({', '.join(parts)})"


def load_model(
    folder: str | Path, *, device: str | torch.device | None = None, threads: int = 0, field: str = "checkpoint"
) -> Model:
    """A model folder, as `Model.save`, `tract-ray teacher`, `distill` and `import-teacher` write it.

    `InputError` (which names `field`) where it is missing or damaged. Nothing in it is executed.

    >>> import tract_ray as tr
    >>> path = tr.train_teacher("digits", **tiny_teacher).save("teacher")
    >>> tr.load_model(path)
    Model(mlp_8x8_small, 247,504 parameters, 1x8x8, 1024 step(s))
    """
    path = Path(folder).expanduser()
    return Model(training.load_model(path, field), worker_on(device, threads), path)
