"""The authors' update rules in float64, written from the formulas: whole trainings, independent of the package.

Networks are called as `network(x, logsnr, None)`, everything around them is done here. A `Script` gives the images,
the noise and the uniform numbers of each step; it and the `Outcome` are all that is shared with what is compared.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tract_ray.benchmarks.scripted import Outcome, Script, weights_of

SIGMA_DATA = 0.5


class Adam:
    """Kingma & Ba 2015, algorithm 1."""

    def __init__(self, network: nn.Module, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.parameters = list(network.parameters())
        self.beta1, self.beta2, self.eps, self.t = beta1, beta2, eps, 0
        self.m = [torch.zeros_like(p) for p in self.parameters]
        self.v = [torch.zeros_like(p) for p in self.parameters]

    def step(self, loss: Tensor, lr: float, clip: float | None) -> float:
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        given = [g if g is not None else torch.zeros_like(p) for g, p in zip(gradients, self.parameters, strict=True)]
        norm = math.sqrt(sum(float(g.square().sum()) for g in given))
        scale = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))
        self.t += 1
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, given, self.m, self.v, strict=True):
                m += (1 - self.beta1) * (scale * g - m)
                v += (1 - self.beta2) * ((scale * g) ** 2 - v)
                unbiased = (v / (1 - self.beta2**self.t)).sqrt()
                p -= lr * (m / (1 - self.beta1**self.t)) / (unbiased + self.eps)
        return norm


class Average:
    """`ema_i = (1 - w_i) ema_(i-1) + w_i phi_i`, `w_i = (1 - mu) / (1 - mu^i)`."""

    def __init__(self, network: nn.Module, mu: float) -> None:
        self.network, self.mu, self.i = copy.deepcopy(network).requires_grad_(False), mu, 0

    def update(self, network: nn.Module) -> None:
        self.i += 1
        w = (1 - self.mu) / (1 - self.mu**self.i)
        with torch.no_grad():
            for own, new in zip(self.network.parameters(), network.parameters(), strict=True):
                own.copy_((1 - w) * own + w * new)


def column(t: Tensor) -> Tensor:
    return t[:, None, None, None]


def logsnr(t: Tensor) -> Tensor:
    low, high = math.atan(math.exp(-10)), math.atan(math.exp(10))
    return -2 * torch.log(torch.tan((high - low) * t + low))


def signal(t: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of gamma and of 1 - gamma."""
    return column(torch.sigmoid(logsnr(t)).sqrt()), column(torch.sigmoid(-logsnr(t)).sqrt())


def ddim(x: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    (a, b), (c, d) = signal(t), signal(s)
    return c * x0 + d * (x - a * x0) / b


def target_of(x: Tensor, y: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The x0 with which a step takes x to y."""
    (a, b), (c, d) = signal(t), signal(s)
    return (x * d - y * b) / (a * d - c * b)


def weight(t: Tensor) -> Tensor:
    return torch.exp(logsnr(t)).clamp(min=1)


def below(u: Tensor, high: int) -> Tensor:
    """Whole numbers of 0 … high - 1 from uniform ones."""
    return (u * high).long()


def tract(teacher: nn.Module, student: nn.Module, script: list[Script], schedule: Sequence[int], lr: float) -> Outcome:
    """TRACT (VP): summed loss, clipped at 1, x0 clipped; at a boundary only the teacher changes, one step late."""
    steps, phases, longest = len(script), len(schedule) - 1, schedule[0]
    mu = 1e-3 ** (phases / steps)
    self_teacher, inference, adam = Average(student, 0.5), Average(student, mu), Adam(student)
    teacher, now, outcome = copy.deepcopy(teacher), 0, Outcome()
    for step, given in enumerate(script):
        phase = int(step / steps * (1 - 1e-9) * phases)
        if phase != now:
            teacher.load_state_dict(inference.network.state_dict())
            now = phase
        before, after = schedule[phase], schedule[phase + 1]
        group = before // after
        start = below(given.uniforms[0], after) * group
        n = start + 1 + below(given.uniforms[1], group)
        t, s, end = (k.double() / before for k in (n, n - 1, start))
        assert longest % before == 0
        a, b = signal(t)
        x = a * given.images + b * given.noises[0]
        with torch.no_grad():
            y = ddim(x, teacher(x, logsnr(t), None).clamp(-1, 1), t, s)
            own = self_teacher.network(y, logsnr(s), None).clamp(-1, 1)
            z = torch.where(column(n - 1 == start), y, ddim(y, own, s, end))
            target = target_of(x, z, t, end)
        error = (student(x, logsnr(t), None) - target).square()
        loss = (column(weight(t)) * error).sum() / len(x)
        outcome.norms.append(adam.step(loss, lr, clip=1.0))
        self_teacher.update(student)
        inference.update(student)
    averages = {"self_teacher": self_teacher.network, "inference": inference.network}
    outcome.weights = {name: weights_of(net) for name, net in {"student": student, **averages}.items()}
    return outcome


def tract_edm(teacher: nn.Module, student: nn.Module, script: list[Script], count: int, lr: float) -> Outcome:
    """TRACT for EDM teachers in one phase: Heun, mean error in F-space, x0 clipped in the self-teacher's step alone."""
    levels = (torch.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), count, dtype=torch.float64)) ** 7
    sigma = torch.cat([torch.zeros(1, dtype=torch.float64), levels])
    self_teacher, inference = Average(student, 0.5), Average(student, 1e-3 ** (1 / len(script)))
    adam, outcome = Adam(student), Outcome()

    def f(network: nn.Module, x: Tensor, s: Tensor) -> Tensor:
        return network(x / (column(s) ** 2 + SIGMA_DATA**2).sqrt(), -2 * torch.log(s), None)  # type: ignore[no-any-return]

    def skip(s: Tensor) -> Tensor:
        return SIGMA_DATA**2 / (column(s) ** 2 + SIGMA_DATA**2)

    def scale(s: Tensor) -> Tensor:
        return column(s) * SIGMA_DATA / (column(s) ** 2 + SIGMA_DATA**2).sqrt()

    def x0(network: nn.Module, x: Tensor, s: Tensor) -> Tensor:
        return skip(s) * x + scale(s) * f(network, x, s)

    for given in script:
        n = 1 + below(given.uniforms[1], count)
        t, before = sigma[n], sigma[(n - 1).clamp(min=1)]
        x = given.images + column(t) * given.noises[0]
        with torch.no_grad():
            first = x0(teacher, x, t)
            slope = (x - first) / column(t)
            y = x + column(before - t) * slope
            y = x + column(before - t) * (slope + (y - x0(teacher, y, before)) / column(before)) / 2
            jump = x0(self_teacher.network, y, before).clamp(-1, 1)  # to sigma 0 a step is its x0
            target = torch.where(column(n == 1), first, jump)
            wanted = (target - skip(t) * x) / scale(t)
        loss = (f(student, x, t) - wanted).square().mean()
        outcome.norms.append(adam.step(loss, lr, clip=None))
        self_teacher.update(student)
        inference.update(student)
    averages = {"self_teacher": self_teacher.network, "inference": inference.network}
    outcome.weights = {name: weights_of(net) for name, net in {"student": student, **averages}.items()}
    return outcome


def progressive(
    teacher: nn.Module, student: nn.Module, script: list[Script], updates: Mapping[int, int], lr: float
) -> Outcome:
    """BTD: `updates` of each halving by its student's steps; Adam and the student start afresh, lr falls to 0."""
    outcome, given_next, teacher = Outcome(), iter(script), copy.deepcopy(teacher)
    for number, (count, length) in enumerate(updates.items()):
        if number:
            teacher.load_state_dict(student.state_dict())
        adam = Adam(student)
        for step in range(length):
            given = next(given_next)
            n = below(given.uniforms[0], count)
            t, middle, s = ((2 * n + k).double() / (2 * count) for k in (2, 1, 0))
            a, b = signal(t)
            x = a * given.images + b * given.noises[0]
            with torch.no_grad():
                y = ddim(x, teacher(x, logsnr(t), None), t, middle)
                x0 = teacher(y, logsnr(middle), None)
                target = torch.where(column(n == 0), x0, target_of(x, ddim(y, x0, middle, s), t, s))
            error = (student(x, logsnr(t), None) - target).square().mean((1, 2, 3))
            loss = (weight(t) * error).mean()
            outcome.norms.append(adam.step(loss, lr * (1 - step / length), clip=1.0))
    outcome.weights = {"student": weights_of(student)}
    return outcome


def moment_matching(
    teacher: nn.Module, student: nn.Module, script: list[Script], k: int, lr: float, warmup: int
) -> Outcome:
    """Algorithm 2, alternating; Adam with beta 0 and 0.99, eps 1e-12; lr rises over `warmup` steps and falls to 0."""
    auxiliary = copy.deepcopy(teacher).requires_grad_(True)
    adams: list[Adam] = [Adam(net, 0.0, 0.99, 1e-12) for net in (auxiliary, student)]
    outcome, steps = Outcome(), len(script)
    for step, given in enumerate(script):
        s = given.uniforms[0]
        t = (s + given.uniforms[1] / k).clamp(max=1)
        a, b = signal(t)
        z = a * given.images + b * given.noises[0]
        x0 = student(z, logsnr(t), None)
        z_s = posterior(z, x0.detach(), given.noises[1], t, s)
        w = column(weight(s)) / given.images[0].numel()
        taught, seen = (net(z_s, logsnr(s), None) for net in (teacher, auxiliary))
        if step % 2 == 0:
            error = (x0.detach() - seen).square() + (taught.detach() - seen).square()
        else:
            error = x0 * (seen - taught).detach()
        rate = lr * ((step + 1) / warmup if step < warmup else (steps - step) / (steps - warmup))
        outcome.norms.append(adams[step % 2].step((w * error).sum() / len(z), rate, clip=1.0))
    outcome.weights = {"student": weights_of(student), "auxiliary": weights_of(auxiliary)}
    return outcome


def posterior(z: Tensor, x0: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """A draw of q(z_s | z_t, x0): the product of two Gaussians, by their precisions."""
    (a, b), (c, d) = signal(t), signal(s)
    ratio = a / c
    rest = (b**2 - (ratio * d) ** 2).clamp(min=1e-300)
    precision = d**-2 + ratio**2 / rest
    mean = (c * x0 / d**2 + ratio * z / rest) / precision
    return mean + noise / precision.sqrt()
