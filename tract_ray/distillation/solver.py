"""The step of a many-step teacher that a student learns from."""

from __future__ import annotations

from torch import Tensor

from tract_ray.config import require
from tract_ray.diffusion import Denoiser, KarrasVE, ddim_step, heun_step


def solver_step(
    solver: str, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, labels: Tensor | None, clip: bool = False
) -> Tensor:
    """The teacher's step from `t` to `s`: `ddim`, or `heun` (VE only). `clip` bounds its x0 to [-1, 1]."""

    def x0(x: Tensor, time: Tensor) -> Tensor:
        value = denoiser(x, time, labels)
        return value.clamp(-1, 1) if clip else value

    if solver == "heun":
        return heun_step(denoiser.schedule, x0, x_t, t, s)
    return ddim_step(denoiser.schedule, x_t, x0(x_t, t), t, s)


def require_solver(solver: str, teacher: Denoiser, kind: str) -> None:
    """Refuse Heun's rule for a teacher that is not variance-exploding."""
    require(
        solver == "ddim" or isinstance(teacher.schedule, KarrasVE),
        "solver",
        f"{kind} with heun needs a teacher with the schedule ve_karras, not {teacher.schedule.name}",
    )
