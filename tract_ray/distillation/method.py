"""The protocol that every training method meets, the teacher's own training included.

A method is one file. It says which networks it holds, the loss of a batch in a phase, what changes at a phase
boundary and what must be saved; `training/loop.py` does the rest, the same for all. To add one: write its
configuration (a `MethodConfig` with a `kind`) and its class, and decorate the class with `@register`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from tract_ray.config import InputError, check_types, choose, require, to_dict
from tract_ray.diffusion import PRECISIONS, Denoiser, samplers, weightings
from tract_ray.distillation.draws import Draws
from tract_ray.distillation.phases import Phase


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """What every method is told. Lengths count training images ("samples"), the clock of the whole platform.

    `loss_reduction` is over the pixels of an image; over the batch it is always the mean. It sets the scale on which
    gradients are clipped and Adam's eps acts: TRACT's code for VP teachers takes the `sum`, whose gradient's norm (a
    hundred or so) the clipping at 1 cuts at every step, which makes normalised updates of them; EDM's code sums too but
    does not clip; TRACT's code for EDM teachers and BTD's take the `mean`. Losses are recorded as means either way.
    `clip_norm` is 1 in TRACT (VP), BTD and moment matching; None (or "none") does not clip, as both EDM codes, which
    instead replace NaN by 0 and infinities by 1e5 in the gradients: `replace_nonfinite`.
    A loss or a gradient that is not finite ends the run; `skip_nonfinite` leaves such a batch out and counts it.
    `adam_betas` and `adam_eps` are torch's defaults in all codes but moment matching's (0, 0.99 and 1e-12).
    `weight_decay` is decoupled (AdamW's): 1e-3 in BTD's teacher of CIFAR-10, else 0. The learning rate rises over the
    first `warmup` optimiser steps of the run: 1,000 for BTD's teachers and moment matching, 10M images for EDM's.
    `precision` is the networks' while they train, teachers and averages included: "bf16" takes their products in
    bfloat16, and leaves weights, averages, the optimiser, times, states, targets and losses as they are. Students are
    sampled, and so scored, in float32.
    """

    samples: int = 96 << 20
    batch: int = 256
    lr: float = 2e-4
    lr_decay: str = "constant"  # or "linear": to zero at the end of each phase
    warmup: int = 0
    loss_reduction: str = "mean"
    clip_norm: float | None = 1.0
    replace_nonfinite: bool = False
    skip_nonfinite: bool = False
    adam_betas: tuple[float, ...] = (0.9, 0.999)
    adam_eps: float = 1e-8
    weight_decay: float = 0.0
    weighting: str = "truncated_snr"
    precision: str = "float32"

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        self._decode()
        require(self.batch >= 1, "batch", f"must be at least 1, got {self.batch}")
        require(self.samples >= self.batch, "samples", f"{self.samples} is less than one batch of {self.batch}")
        require(self.samples <= 1 << 50, "samples", f"{self.samples} are more than any machine trains on")
        require(self.lr > 0, "lr", f"must be positive, got {self.lr}")
        choose("lr_decay", self.lr_decay, ("constant", "linear"))
        require(self.warmup >= 0, "warmup", f"must not be negative, got {self.warmup}")
        choose("loss_reduction", self.loss_reduction, ("mean", "sum"))
        require(
            self.clip_norm is None or self.clip_norm > 0, "clip_norm", f"must be positive or none, got {self.clip_norm}"
        )
        betas = self.adam_betas
        require(len(betas) == 2 and all(0 <= b < 1 for b in betas), "adam_betas", f"must be two of [0, 1), got {betas}")
        require(self.adam_eps > 0, "adam_eps", f"must be positive, got {self.adam_eps}")
        require(self.weight_decay >= 0, "weight_decay", f"must not be negative, got {self.weight_decay}")
        choose("weighting", self.weighting, weightings)
        choose("precision", self.precision, PRECISIONS)

    def _decode(self) -> None:
        """Every setting as its type; done before values are compared."""
        if str(self.clip_norm).lower() == "none":
            object.__setattr__(self, "clip_norm", None)
        check_types(self)

    def part_ends(self) -> tuple[int, ...]:
        """Optimiser steps at which settings change within the run; none by default."""
        return ()

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.samples // self.batch

    def phases(self) -> tuple[Phase, ...]:
        """The phases that this configuration lays out; one by default."""
        return (Phase(0, 0, self.steps, 1, 1),)

    def is_last(self, phase: Phase) -> bool:
        """Whether the run ends with `phase`."""
        return phase.index == len(self.phases()) - 1

    @staticmethod
    def kinds() -> dict[str, type[MethodConfig]]:
        """The configuration type of every registered method."""
        return {name: method.config_type for name, method in methods.items()}


@dataclass(frozen=True)
class Batch:
    """The local shard of a training step: images `(b, C, H, W)` in [-1, 1], labels `(b,)` or None, its random draws."""

    images: Tensor
    labels: Tensor | None
    draws: Draws
    step: int  # optimiser step within the phase, from 0


class Method(ABC):
    """One way of training a network. See the module's text."""

    kind: ClassVar[str]
    paper: ClassVar[str]
    config_type: ClassVar[type[MethodConfig]]
    needs_teacher: ClassVar[bool] = True
    sampler: ClassVar[str] = "ddim"
    uses_dropout: ClassVar[bool] = False  # students are trained without (TRACT, section 4)
    divisible: ClassVar[bool] = True  # a sample's loss is the same in any part of the batch
    keeps_best: ClassVar[bool] = False  # the result is the best evaluation's network, not the last one

    config: Any
    phases: tuple[Phase, ...]
    trained: dict[str, Denoiser]
    """The networks that an optimiser updates. The loop may wrap `trained[name].network` (DDP)."""
    students: Mapping[int, Callable[[nn.Module | None], nn.Module]]
    """By phase that begins with another architecture: what builds its student, from what it shares with a network."""

    def __init__(self, config: Any, teacher: Denoiser | None, student: nn.Module) -> None:
        """Every method is built from its configuration, a teacher that it may overwrite, and a student to train."""
        self.config = config
        self.students = {}
        self.phases = config.phases()
        self.phase = self.phases[0]

    @classmethod  # noqa: B027 (a method without teacher is fine)
    def check_teacher(cls, config: Any, steps: int | None) -> None:
        """Raise `InputError` where a student of `steps` cannot be the teacher; None is a teacher of any steps."""

    @classmethod
    def determines(cls, config: Any, phase: Phase, start: int, end: int) -> dict[str, Any]:
        """What determines the weights after steps `start … end - 1` of `phase`, beside those before and the seed."""
        return {"method": to_dict(config), "phase": asdict(phase), "steps": [start, end]}

    @classmethod
    def handover(cls, config: Any, phase: Phase) -> float:
        """The mu_i of the average that the next phase starts from."""
        return 0.0

    @classmethod
    def other_calls(cls, config: Any, phase: Phase) -> float:
        """Network calls for a training image beside those of the network that learns; forecasts read it."""
        return 0.0

    def to(self, device: torch.device) -> None:
        """Move every network of the current phase to `device`."""
        for module in self.modules().values():
            module.to(device)

    def start_phase(self, phase: Phase) -> None:
        """What changes when `phase` begins, then `set_phase`. The loop makes fresh optimisers unless they go on."""
        self.set_phase(phase)

    def optimizers_go_on(self, phase: Phase) -> bool:
        """Whether `phase` begins with the optimisers' moments of the phase before it."""
        return False

    def set_phase(self, phase: Phase) -> None:
        """Hold the networks that `phase` holds, whatever their weights: a checkpoint is restored into them."""
        self.phase = phase

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Loss of each sample, `(b,)`; the loop takes the mean over the global batch."""

    def active(self, step: int) -> str:
        """Which of `trained` the step updates (methods with two networks alternate)."""
        return "student"

    def after_step(self, batch: Batch) -> None:  # noqa: B027 (a method without averages is fine)
        """Called after the optimiser: averages are taken here."""

    @property
    def settled(self) -> bool:
        """Whether a checkpoint now leaves the steps that follow as they would be without it, bit by bit."""
        return True

    def store_averages(self, folder: Path) -> None:  # noqa: B027
        """Write to `folder` what a method stores on its way beside checkpoints; only the leading worker calls this."""

    def optimizer(self, name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimiser for `trained[name]`: Adam, with decoupled weight decay."""
        c = self.config
        betas = (c.adam_betas[0], c.adam_betas[1])
        return torch.optim.AdamW(
            parameters, lr=c.lr, betas=betas, eps=c.adam_eps, weight_decay=c.weight_decay, fused=True
        )

    def learning_rate(self, step: int) -> float:
        """Learning rate of optimiser step `step` of the current phase."""
        return float(self.config.lr * self.decay(step))

    def decay(self, step: int) -> float:
        """The share of the learning rate that `warmup` and `lr_decay` leave at step `step` of the current phase."""
        warmup = self.config.warmup
        risen = min(1.0, (self.phase.start + step + 1) / warmup) if warmup else 1.0
        return risen * (1 - step / self.phase.steps if self.config.lr_decay == "linear" else 1.0)

    @abstractmethod
    def candidates(self) -> dict[float, nn.Module]:
        """The networks one may sample from now, by their mu_i; the first is the method's own choice."""

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """Every network whose weights a checkpoint must hold."""

    def kept(self) -> set[str]:
        """Names of the `modules()` that matter once the phase is over: what a finished stage stores."""
        return set(self.modules())

    def counters(self) -> dict[str, int]:
        """Whole numbers a checkpoint must hold beside the weights (numbers of EMA updates)."""
        return {}

    def restore_counters(self, counters: Mapping[str, int]) -> None:  # noqa: B027
        """Undo `counters`."""

    def sampling_times(self, steps: int) -> Tensor:
        """The sampler's nodes for `steps` network calls, `(steps + 1,)`."""
        return next(iter(self.trained.values())).schedule.nodes(steps)

    def sample(self, network: nn.Module, noise: Tensor, steps: int, labels: Tensor | None = None) -> Tensor:
        """Images `(B, C, H, W)` from one of `candidates()` in `steps` network calls."""
        denoiser = next(iter(self.trained.values())).view_of(network, "float32")
        return samplers[self.sampler](denoiser, noise, steps, times=self.sampling_times(steps), labels=labels)


M = TypeVar("M", bound=type[Method])
methods: dict[str, type[Method]] = {}


def register(method: M) -> M:
    """Class decorator: make `method` known by its `kind`."""
    if inspect.isabstract(method):
        raise TypeError(f"{method.__name__} leaves parts of the protocol out")
    methods[method.kind] = method
    return method


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over pixels of the squared difference, `(B,)`."""
    return (prediction - target).square().flatten(1).mean(1)


def require_teacher(teacher: Denoiser | None, kind: str) -> Denoiser:
    """The teacher, or the error of a method that was built without one."""
    if teacher is None:
        raise InputError(f"teacher: {kind} needs a trained teacher")
    return teacher


def num_classes(network: nn.Module) -> int:
    """Classes of a class-conditional network, 0 for an unconditional one."""
    embedding = getattr(network, "embed_class", None)  # the layer that reads labels; EDM's networks have another
    return int(getattr(embedding or network, "num_classes", 0))
