"""What is computed on features, by name. Importing the package registers every metric."""

from tract_ray.evaluation.metrics.frechet import FrechetDistance, Statistics, frechet_distance, frechet_distance_numpy
from tract_ray.evaluation.metrics.metric import Metric, metrics, register

__all__ = [
    "FrechetDistance",
    "Metric",
    "Statistics",
    "frechet_distance",
    "frechet_distance_numpy",
    "metrics",
    "register",
]
