"""The samplers by name, with what each costs; and the one that a teacher is made for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tract_ray.config import choose, require
from tract_ray.diffusion.heun import sample_heun
from tract_ray.diffusion.sampling import sample_ancestral, sample_ddim, sample_euler
from tract_ray.diffusion.schedules import KarrasVE


@dataclass(frozen=True)
class Sampler:
    """Called as `sampler(denoiser, noise, steps, times=…, labels=…, **options)`; images `(B, C, H, W)`, float64.

    `nfe` says how many network calls so many steps take for an image.
    """

    sample: Callable[..., Tensor]
    nfe: Callable[[int], int] = lambda steps: steps

    def __call__(self, *arguments: Any, **options: Any) -> Tensor:
        return self.sample(*arguments, **options)

    @property
    def options(self) -> dict[str, float]:
        """The numbers that it can be told, with their defaults."""
        parameters = inspect.signature(self.sample).parameters.values()
        return {p.name: p.default for p in parameters if isinstance(p.default, float)}


samplers: dict[str, Sampler] = {
    "ddim": Sampler(sample_ddim),
    "euler": Sampler(sample_euler),
    "heun": Sampler(sample_heun, nfe=lambda steps: 2 * steps - 1),
    "ancestral": Sampler(sample_ancestral),
}


def check_options(sampler: str, options: Mapping[str, Any]) -> dict[str, float]:
    """The options of `sampler` as numbers; an `InputError` for one that it does not have or that is none."""
    known = samplers[sampler].options
    require(bool(known) or not options, "sampler options", f"{sampler} has none, got {', '.join(options)}")
    for name, value in options.items():
        choose(f"{sampler} option", name, known)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number and value >= 0, name, f"must be a number that is not negative, got {value!r}")
    return {name: float(value) for name, value in options.items()}


def teacher_sampling(schedule: str, size: int) -> tuple[str, int]:
    """Sampler and steps of a teacher for images of `size` pixels a side that is asked for nothing else.

    DDIM with TRACT's 1,024 steps; on EDM's process its own sampler with its defaults, 18 steps (35 network calls) up to
    32 pixels a side and 40 (79) beyond (Karras et al. 2022, table 2).
    """
    if schedule == KarrasVE.name:
        return "heun", 18 if size <= 32 else 40
    return "ddim", 1024
