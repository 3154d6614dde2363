"""Extractors, metrics, sample grids, what a model scores and how long it takes."""

from tract_ray.evaluation.extractors import (
    FeatureExtractor,
    build_extractor,
    check_extractor,
    classifier,
    extractor_kind,
)
from tract_ray.evaluation.latency import latency
from tract_ray.evaluation.metrics import Metric, Statistics, frechet_distance, frechet_distance_numpy
from tract_ray.evaluation.noise import LABELS, Noise, fixed_labels, fixed_noise
from tract_ray.evaluation.sample_grid import image_grid, save_grid
from tract_ray.evaluation.score import Evaluator

__all__ = [
    "LABELS",
    "Evaluator",
    "FeatureExtractor",
    "Metric",
    "Noise",
    "Statistics",
    "build_extractor",
    "check_extractor",
    "classifier",
    "extractor_kind",
    "fixed_labels",
    "fixed_noise",
    "frechet_distance",
    "frechet_distance_numpy",
    "image_grid",
    "latency",
    "save_grid",
]
