"""Features, Fréchet distance, sample grids, what a model scores and how long it takes."""

from tract_ray.evaluation.features import FeatureExtractor, build_extractor, check_extractor, extractors
from tract_ray.evaluation.frechet import Statistics, frechet_distance, frechet_distance_numpy
from tract_ray.evaluation.latency import latency
from tract_ray.evaluation.sample_grid import image_grid, save_grid
from tract_ray.evaluation.score import Evaluator, fixed_noise

__all__ = [
    "Evaluator",
    "FeatureExtractor",
    "Statistics",
    "build_extractor",
    "check_extractor",
    "extractors",
    "fixed_noise",
    "frechet_distance",
    "frechet_distance_numpy",
    "image_grid",
    "latency",
    "save_grid",
]
