"""Perfect students of a Gaussian teacher: for it every step of a sampler is affine, and so is their composition."""

from __future__ import annotations

from collections.abc import Callable

import torch
from small_methods import schedule_of
from torch import Tensor, nn

from tract_ray.diffusion import GaussianDenoiser, NoiseSchedule
from tract_ray.distillation import Method, MethodConfig, Phase, methods

Map = Callable[[float], float]  # of one pixel


def gaussian_teacher(kind: str) -> GaussianDenoiser:
    """The teacher, on the schedule that suits the method."""
    return GaussianDenoiser(schedule_of(kind))


class AffineX0(nn.Module):
    """`x0 = gain x + offset` with coefficients listed by logsnr, float64: what the perfect student must be."""

    def __init__(self, logsnr: list[float], maps: list[Map]) -> None:
        super().__init__()
        rows = [(at, f(1.0) - f(0.0), f(0.0)) for at, f in zip(logsnr, maps, strict=True)]
        self.table = nn.Parameter(torch.tensor(rows, dtype=torch.float64))

    def forward(self, x: Tensor, logsnr: Tensor, labels: Tensor | None = None) -> Tensor:
        distance = (logsnr[:, None] - self.table[:, 0].detach()).abs()
        assert float(distance.min(1).values.max()) < 1e-9, "asked at a time that is no node"
        row = self.table[distance.argmin(1)]
        return row[:, 1, None, None, None] * x + row[:, 2, None, None, None]


class Scalars:
    """A schedule and a Gaussian teacher in plain numbers, from the formulas of the papers."""

    def __init__(self, schedule: NoiseSchedule, times: list[float], mean: float = 0.2, std: float = 0.3) -> None:
        at = torch.tensor(times, dtype=torch.float64)
        self.alpha, self.sigma = schedule.alpha(at).tolist(), schedule.sigma(at).tolist()
        self.mean, self.std = mean, std

    def x0(self, x: float, n: int) -> float:
        """`E[x_0 | x]` at node `n`."""
        a, s = self.alpha[n], self.sigma[n]
        return self.mean + a * self.std**2 / (a * a * self.std**2 + s * s) * (x - a * self.mean)

    def ddim(self, x: float, x0: float, n: int, m: int) -> float:
        return self.alpha[m] * x0 + self.sigma[m] / self.sigma[n] * (x - self.alpha[n] * x0)

    def heun(self, x: float, n: int, m: int) -> float:
        step = self.sigma[m] - self.sigma[n]
        slope = (x - self.x0(x, n)) / self.sigma[n]
        euler = x + step * slope
        if self.sigma[m] == 0:
            return euler
        return x + step / 2 * (slope + (euler - self.x0(euler, m)) / self.sigma[m])

    def inverse(self, x: float, y: float, n: int, m: int) -> float:
        """The x0 with which a DDIM step takes `x` at node `n` to `y` at node `m`."""
        ratio = self.sigma[m] / self.sigma[n]
        return (y - ratio * x) / (self.alpha[m] - self.alpha[n] * ratio)


def jump(own: Scalars, n: int, start: int, step: Callable[[float, int, int], float]) -> Map:
    """The perfect student at node `n` of a group that begins at `start`: all steps, then the inverse of one."""

    def x0(x: float) -> float:
        y = x
        for node in range(n, start, -1):
            y = step(y, node, node - 1)
        return own.inverse(x, y, n, start)

    return x0


def perfect_maps(kind: str, own: Scalars, phase: Phase) -> dict[int, Map]:
    """By node of the phase's teacher: what the perfect student computes there."""

    def ddim(x: float, n: int, m: int) -> float:
        return own.ddim(x, own.x0(x, n), n, m)

    if kind in ("tract", "tract_edm"):
        step = own.heun if kind == "tract_edm" and phase.index == 0 else ddim
        nodes = range(1, phase.teacher_steps + 1)
        return {n: jump(own, n, (n - 1) // phase.group * phase.group, step) for n in nodes}
    if kind == "progressive":
        maps = {n: jump(own, n, n - 2, ddim) for n in range(4, phase.teacher_steps + 1, 2)}
        return {**maps, 2: lambda x: own.x0(ddim(x, 2, 1), 1)}
    if kind == "consistency":

        def follow(n: int) -> Map:
            def x0(x: float) -> float:
                for node in range(n, 1, -1):
                    x = ddim(x, node, node - 1)
                return own.x0(x, 1)

            return x0

        return {n: follow(n) for n in range(1, phase.teacher_steps + 1)}

    def sample(x: float) -> float:
        for node in range(phase.teacher_steps, 0, -1):
            x = ddim(x, node, node - 1)
        return x

    return {phase.teacher_steps: sample}


def perfect(kind: str, config: MethodConfig, phase: Phase) -> Method:
    """The method in `phase`, its teacher the Gaussian's denoiser, its student (and self-teacher) perfect."""
    teacher = gaussian_teacher(kind)
    times = methods[kind](config, teacher, nn.Identity()).times[
        :: config.phases()[0].teacher_steps // phase.teacher_steps
    ]
    maps = perfect_maps(kind, Scalars(teacher.schedule, times.tolist()), phase)
    logsnr = teacher.schedule.logsnr(times).tolist()
    student = AffineX0([logsnr[n] for n in maps], list(maps.values()))
    method = methods[kind](config, teacher, student)
    method.set_phase(phase)
    method.teacher = teacher  # a later phase's would be a copy of the student
    return method
