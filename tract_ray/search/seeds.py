"""What the seeds of one configuration have found together: the numbers of its row, and what the sampler is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Pooled:
    """`distance` is the mean of `seeds`, `distances` are the means by mu_i.

    What the seeds report is of fresh noise and of the mu_i that each has chosen itself; `distances` are of the noise
    that chose. So `distance` is not the least of them, which would be too good.
    """

    distance: float
    mu_i: float
    distances: dict[float, float]
    seeds: tuple[float, ...]


def pooled(results: Sequence[Mapping[str, Any]], select: str = "best") -> Pooled:
    """Of the seeds' results (or last reports, where mu_i may be text), as plain data.

    Unless the runs score their `own` mu_i, the one named is the best in the mean, not each seed's.
    """
    first = results[0]
    banks = [{float(mu): float(d) for mu, d in (r.get("distances") or {}).items()} for r in results]
    shared = [mu for mu in banks[0] if all(mu in bank for bank in banks)]
    distances = {mu: float(np.mean([bank[mu] for bank in banks])) for mu in shared}
    own = select == "own" or not distances
    mu = float(first.get("mu_i", 0.0)) if own else min(distances, key=distances.__getitem__)
    seeds = tuple(float(r["distance"]) for r in results)
    return Pooled(float(np.mean(seeds)), mu, distances, seeds)
