"""What a metric must answer, and which ones there are.

A new metric is one file here: a class decorated with `@register`, imported in this package's `__init__`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray


class Metric(ABC):
    """How far features `(N, D)` of samples are from those of the data; smaller is better, as searches take it.

    A measurement is named by the metric's `kind` and the extractor's `label`: `fid_inception_clean`.
    """

    kind: ClassVar[str]

    @abstractmethod
    def reference(self, real: NDArray[np.float64]) -> Any:
        """What is kept of the data's features `(N, D)`, once for all samples that are compared with them."""

    @abstractmethod
    def distance(self, features: NDArray[np.float64], reference: Any) -> float:
        """The number for the samples' `features` `(N, D)`, whatever their order."""

    def computation(self) -> str:
        """Who computes it on this machine, where that is a choice."""
        return "tract-ray"


metrics: dict[str, type[Metric]] = {}
M = TypeVar("M", bound=type[Metric])


def register(metric: M) -> M:
    """Class decorator: make `metric` known by its `kind`."""
    if inspect.isabstract(metric):
        raise TypeError(f"{metric.__name__} leaves parts of the protocol out")
    metrics[metric.kind] = metric
    return metric
