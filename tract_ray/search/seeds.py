"""What the seeds of one configuration have found together: the numbers of its row, and what the sampler is told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tract_ray.training.record import BY_MU, by_mu


@dataclass(frozen=True)
class Pooled:
    """All of one `mu_i`: `seeds` are the distances that each has with it on fresh noise, `distance` is their mean.

    `distances`, means by mu_i, are of the noise on which it was chosen, `selection` is its own among them: what rows
    are compared by. It is the least of many, and too good to be reported.
    """

    distance: float
    mu_i: float
    distances: dict[float, float]
    seeds: tuple[float, ...]
    selection: float


def pooled(results: Sequence[Mapping[str, Any]], select: str = "best") -> Pooled:
    """Of the seeds' results (or last reports, where mu_i may be text), as plain data.

    Unless the runs score their `own` mu_i, it is the best in the mean, not each seed's. A result that has no distance
    of it on fresh noise (an older version's) counts with that of its own.
    """
    first = results[0]
    banks, fresh = ([by_mu(r.get(name)) for r in results] for name in BY_MU)
    shared = [mu for mu in banks[0] if all(mu in bank for bank in banks)]
    distances = {mu: mean([bank[mu] for bank in banks]) for mu in shared}
    own = select == "own" or not distances
    mu = float(first.get("mu_i", 0.0)) if own else min(distances, key=distances.__getitem__)
    seeds = tuple(known.get(mu, float(r["distance"])) for known, r in zip(fresh, results, strict=True))
    return Pooled(mean(seeds), mu, distances, seeds, distances.get(mu, mean(seeds)))


def mean(values: Sequence[float]) -> float:
    """The same to the last digit in whatever order the values come."""
    return math.fsum(values) / len(values)
