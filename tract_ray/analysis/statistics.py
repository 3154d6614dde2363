"""What repeats can tell: means with their intervals, whether the best is the best, and what is worth its cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tract_ray.config import require

LEVEL = 0.05


@dataclass(frozen=True)
class Interval:
    """The mean of `count` values and half the width of its 95% interval: None for a single value, which has none."""

    mean: float
    half: float | None
    count: int

    @property
    def low(self) -> float:
        """The lower end; the value itself where there is one."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """The upper end; the value itself where there is one."""
        return self.mean + (self.half or 0.0)

    def __str__(self) -> str:
        return f"{self.mean:.3g}" if self.half is None else f"{self.mean:.3g} ± {self.half:.2g}"


def interval(values: Sequence[float]) -> Interval:
    """`mean ± t_(0.975, n-1) s / sqrt(n)` of one configuration's seeds."""
    require(bool(values), "values", "an interval needs at least one")
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return Interval(mean, None, 1)
    deviation = float(np.std(np.asarray(values, dtype=np.float64), ddof=1))
    quantile = float(stats.t.ppf(1 - LEVEL / 2, count - 1))
    return Interval(mean, quantile * deviation / math.sqrt(count), count)


@dataclass(frozen=True)
class Verdict:
    """Whether the best configuration differs from the second. `p` is Welch's, None where it cannot be computed."""

    best: str
    second: str | None
    p: float | None
    text: str

    @property
    def distinguishable(self) -> bool:
        """Whether the difference is more than the seeds' scatter, at 5%."""
        return self.p is not None and self.p < LEVEL


def verdict(seeds: Mapping[str, Sequence[float]], ranked: Sequence[str] = ()) -> Verdict:
    """Compare the first two `ranked` (default: the two smallest means) of `seeds`, each configuration's distances.

    Welch's t-test, two-sided: unequal variances, any numbers of seeds. Where the two are chosen by what is compared, or
    by other noise of the same runs, a p-value near 5% is weak evidence if many configurations were tried.
    """
    require(bool(seeds), "seeds", "there is no configuration to compare")
    means = {name: interval(values) for name, values in seeds.items()}
    ranked = ranked or sorted(means, key=lambda name: (means[name].mean, name))
    best, second = ranked[0], ranked[1] if len(ranked) > 1 else None
    if second is None:
        return Verdict(best, None, None, f"{best} ({means[best]}) is the only configuration")
    pair = f"{best} ({means[best]}) and {second} ({means[second]})"
    single = [name for name in (best, second) if means[name].count == 1]
    if single:
        who = "each was" if len(single) == 2 else f"{single[0]} was"
        return Verdict(best, second, None, f"whether {pair} differ cannot be told: {who} run with one seed")
    p = _welch(seeds[best], seeds[second])
    if p < LEVEL:
        return Verdict(best, second, p, f"{pair} differ: p = {p:.2g} (Welch's t-test)")
    text = f"{pair} cannot be told apart with {means[best].count} and {means[second].count} seeds: p = {p:.2g}"
    return Verdict(best, second, p, text)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (distance, cost) pairs that no other pair beats, cheapest first.

    One beats another if it is smaller in one and not larger in the other; of equal pairs all stay. A pair with a NaN
    is not on the front.
    """
    order = sorted((k for k, p in enumerate(points) if not any(map(math.isnan, p))), key=lambda k: points[k][::-1])
    front: list[int] = []
    for k in order:
        if not front or points[k][0] < points[front[-1]][0] or points[k] == points[front[-1]]:
            front.append(k)
    return front


def _welch(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p-value; without any scatter, equal means are 1 and others 0."""
    if len({*first}) == len({*second}) == 1:
        return 1.0 if first[0] == second[0] else 0.0
    moments = [m for v in (first, second) for m in (np.mean(v), np.std(v, ddof=1), len(v))]
    return float(stats.ttest_ind_from_stats(*moments, equal_var=False).pvalue)
