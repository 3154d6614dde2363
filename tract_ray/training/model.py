"""Model folders: weights as safetensors beside a JSON description. Nothing is ever unpickled."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tract_ray.config import InputError, choose, from_dict, require, to_dict
from tract_ray.data import Dataset
from tract_ray.diffusion import Denoiser, build_schedule, check_options, predictions, samplers
from tract_ray.distillation.phases import MAX_STEPS
from tract_ray.files import (
    atomic_folder,
    mend_folder,
    read_json,
    read_safetensors,
    require_local,
    require_writable,
    write_json,
    write_safetensors,
)
from tract_ray.networks import count_parameters
from tract_ray.training.run_config import NetworkConfig, build_for

FORMAT = 1
FILES = {"config.json", "model.safetensors"}


@dataclass
class Model:
    """A network that can be sampled from: a teacher (`steps` of its own schedule) or a student of few `steps`.

    Images have the `shape` (C, H, W). `times` are a student's nodes, None for the schedule's; `sampler` is what it is
    made for, with `sampler_options` (churn); `dataset` is what it was trained on, "" where nobody knows; `about` says
    where it comes from, in plain data.
    """

    denoiser: Denoiser
    network: NetworkConfig
    shape: tuple[int, int, int]
    steps: int
    num_classes: int = 0
    times: list[float] | None = None
    sampler: str = "ddim"
    sampler_options: dict[str, float] = field(default_factory=dict)
    dataset: str = ""
    about: dict[str, Any] = field(default_factory=dict)

    def sample(self, noise: Tensor, labels: Tensor | None = None, steps: int | None = None) -> Tensor:
        """Images `(B, C, H, W)` in [-1, 1] from standard normal `noise`, in `steps` of its sampler (own by default)."""
        sampler, times = samplers[self.sampler], self.own_times(steps)
        return sampler(self.denoiser, noise, steps or self.steps, times=times, labels=labels, **self.sampler_options)

    def nfe(self, steps: int | None = None) -> int:
        """Network calls for an image in `steps` of its sampler (own by default)."""
        return samplers[self.sampler].nfe(steps or self.steps)

    def sampling(self) -> dict[str, Any]:
        """What must be named with its images: sampler, its options, its steps and their network calls."""
        return {"sampler": self.sampler, **self.sampler_options, "steps": self.steps, "nfe": self.nfe()}

    def described_steps(self) -> str:
        """`18 heun step(s), 35 network call(s)`."""
        return f"{self.steps} {self.sampler} step(s), {self.nfe()} network call(s)"

    def resampled(
        self, steps: int | None = None, sampler: str | None = None, options: Mapping[str, float] | None = None
    ) -> Model:
        """The same network with another number of steps, sampler or sampler's options; None keeps its own.

        Raises `InputError` for what it cannot: a student takes its own steps, and none of second order.
        """
        steps, name = self.check_steps(steps) or self.steps, choose("sampler", sampler or self.sampler, samplers)
        student = self.times is not None and samplers[name].nfe(2) > 2
        require(not student, "sampler", f"a student of {self.steps} step(s) takes no {name} steps; use {self.sampler}")
        kept = self.sampler_options if name == self.sampler else {}
        options = check_options(name, kept if options is None else options)
        return dataclasses.replace(self, steps=steps, sampler=name, sampler_options=options)

    def as_teacher(self) -> Denoiser:
        """The x0 view to distil from; a student's knows its own nodes only."""
        teacher = copy.copy(self.denoiser)
        teacher.times = self.own_times()
        return teacher

    def own_times(self, steps: int | None = None) -> Tensor | None:
        """A student's nodes `(steps + 1,)`, float64; None for the schedule's, as of a teacher or other `steps`."""
        own = self.times is not None and steps in (None, self.steps)
        return torch.tensor(self.times, dtype=torch.float64) if own else None

    def check_steps(self, steps: int | None) -> int | None:
        """`steps` (None: its own) where it can be sampled in that many, else an `InputError`."""
        require(steps is None or steps >= 1, "steps", f"must be at least 1, got {steps}")
        require(steps is None or steps <= MAX_STEPS, "steps", f"must be at most {MAX_STEPS}, got {steps}")
        fits = steps is None or self.times is None or steps == self.steps
        require(fits, "steps", f"this student was distilled for {self.steps} step(s), not {steps}")
        return steps

    def trained_on(self, named: str | None) -> str | None:
        """The data set that it says; the `named` one (absolute) where it says none. Another one is refused."""
        own = self.dataset
        fits = not own or not named or own.partition(",")[0] == named.partition(",")[0]
        require(fits, "dataset", f"the teacher was trained on {own}, not {named}; leave --dataset out")
        return own or named

    def check_fit(self, dataset: Dataset, field: str) -> None:
        """Refuse, naming `field`, to be measured against images or classes that are not the model's."""
        shape, classes = dataset.shape, dataset.num_classes
        makes = f"makes images of shape {self.shape}, but {dataset.name} has {shape}"
        require(shape == self.shape, field, makes)
        has = f"has {self.num_classes} classes, but {dataset.name} has {classes}"
        require(self.num_classes in (0, classes), field, has)

    def to(self, device: torch.device | str) -> Model:
        """Move the network to `device`; returns itself."""
        self.denoiser.network.to(device)
        return self

    def save(self, folder: Path) -> Path:
        """Write the folder, whole or not at all; a model folder that is there already is replaced."""
        check_free(folder)
        description = {
            "format": FORMAT,
            "network": to_dict(self.network),
            "shape": list(self.shape),
            "num_classes": self.num_classes,
            "schedule": self.denoiser.schedule.name,
            "prediction": self.denoiser.prediction,
            "steps": self.steps,
            "times": self.times,
            "sampler": self.sampler,
            "sampler_options": self.sampler_options,
            "dataset": self.dataset,
            "parameters": count_parameters(self.denoiser.module),
            "about": self.about,
        }
        with atomic_folder(folder) as new:
            write_safetensors(new / "model.safetensors", self.denoiser.module.state_dict())
            write_json(new / "config.json", description)
        return folder


def check_free(folder: Path, field: str = "out") -> None:
    """Refuse a place where something else than a model folder lies: saving there would remove it."""
    require_local(folder, field)
    require_writable(folder.parent, field)
    free = not folder.exists() or (folder.is_dir() and {entry.name for entry in folder.iterdir()} <= FILES)
    require(free, field, f"{folder} exists and is not a model folder; choose another")


def load_model(folder: str | Path, field: str = "checkpoint") -> Model:
    """Read a model folder. Raises `InputError` (naming `field`) when it is missing, damaged or inconsistent."""
    path = mend_folder(Path(folder).expanduser())
    if not path.is_dir():
        raise InputError(f"{field}: {path} is not a model folder (it should hold config.json and model.safetensors)")
    described = read_json(path / "config.json", field)
    tensors = read_safetensors(path / "model.safetensors", field)
    try:
        return _build(from_dict(Description, described, field="config.json"), tensors)
    except InputError as error:
        raise InputError(f"{field}: {path}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{field}: {path} is damaged ({reason})") from None


@dataclass(frozen=True, kw_only=True)
class Description:
    """What `config.json` holds."""

    format: int
    network: NetworkConfig
    shape: tuple[int, ...]
    num_classes: int
    schedule: str
    prediction: str
    steps: int
    times: tuple[float, ...] | None
    sampler: str
    dataset: str
    parameters: int
    about: dict[str, Any]
    sampler_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.format == FORMAT, "format", f"{self.format}; this version reads {FORMAT}")
        shape = self.shape
        require(len(shape) == 3 and all(0 < n <= 1 << 14 for n in shape), "shape", f"{shape} is not that of an image")
        require(0 <= self.num_classes <= 1 << 20, "num_classes", f"{self.num_classes} is out of bounds")
        require(0 < self.steps <= MAX_STEPS, "steps", f"must be from 1 to {MAX_STEPS}, got {self.steps}")
        choose("prediction", self.prediction, predictions)
        choose("sampler", self.sampler, samplers)
        if self.times is not None:
            up = all(0 <= a < b for a, b in pairwise(self.times))
            require(up and len(self.times) == self.steps + 1, "times", f"are not {self.steps + 1} rising ones")


def _build(described: Description, tensors: dict[str, Tensor]) -> Model:
    network, prediction = described.network, described.prediction
    channels, height, width = described.shape
    shape = (channels, height, width)
    module = build_for(network, shape, prediction, described.num_classes, seed=None)
    own, found = ({name: t.shape for name, t in weights.items()} for weights in (module.state_dict(), tensors))
    for name in sorted({*own, *found}):
        require(own.get(name) == found.get(name), "weights", f"not those of {network.name} (they differ in {name})")
    module.load_state_dict(tensors)
    return Model(
        denoiser=Denoiser(module.eval().requires_grad_(False), build_schedule(described.schedule), prediction),
        network=network,
        shape=shape,
        steps=described.steps,
        num_classes=described.num_classes,
        times=list(described.times) if described.times else None,
        sampler=described.sampler,
        sampler_options=check_options(described.sampler, described.sampler_options),
        dataset=described.dataset,
        about=described.about,
    )
