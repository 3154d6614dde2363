"""The Fréchet distance between two sets of features, by clean-fid's own computation."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tract_ray.config import require
from tract_ray.evaluation.metrics.metric import Metric, register

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """Mean `(D,)`, covariance `(D, D)` and number of a set of features."""

    mean: Array
    cov: Array
    count: int

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> Statistics:
        """Statistics of features `(N, D)`, N >= 2."""
        require(features.ndim == 2 and len(features) >= 2, "features", f"need (N >= 2, D), got {features.shape}")
        values = features.astype(np.float64)
        return cls(values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False)), len(values))


def computation() -> str:
    """Who computes the distance on this machine: `clean-fid` where it is installed, else `numpy` (the same number)."""
    return "clean-fid" if importlib.util.find_spec("cleanfid") else "numpy"


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """`|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))` (Heusel et al. 2017), by clean-fid where it is installed."""
    if computation() == "numpy":
        return frechet_distance_numpy(a, b)
    from cleanfid.fid import frechet_distance as cleanfid_distance

    return float(cleanfid_distance(a.mean, a.cov, b.mean, b.cov))


def frechet_distance_numpy(a: Statistics, b: Statistics) -> float:
    """The same number through the eigenvalues of the symmetric `C_a^(1/2) C_b C_a^(1/2)`, without scipy."""
    values, vectors = np.linalg.eigh(a.cov)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b.cov @ root).clip(min=0)).sum()
    return float(np.square(a.mean - b.mean).sum() + np.trace(a.cov) + np.trace(b.cov) - 2 * cross)


@register
class FrechetDistance(Metric):
    """FID, where the features are Inception's."""

    kind = "fid"

    def reference(self, real: Array) -> Statistics:
        return Statistics.of(real)

    def distance(self, features: Array, reference: Any) -> float:
        return frechet_distance(Statistics.of(features), reference)

    def computation(self) -> str:
        return computation()
