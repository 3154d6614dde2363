"""What sees images for a metric, by name. Importing the package registers every extractor."""

from tract_ray.evaluation.extractors.classifier import ClassifierFeatures
from tract_ray.evaluation.extractors.extractor import (
    FeatureExtractor,
    build_extractor,
    check_extractor,
    extractor_kind,
    extractors,
    register,
)
from tract_ray.evaluation.extractors.inception import InceptionClean, InceptionLegacyTensorflow
from tract_ray.evaluation.extractors.inception_pytorch import InceptionLegacyPytorch
from tract_ray.evaluation.extractors.random_features import RandomFeatures

__all__ = [
    "ClassifierFeatures",
    "FeatureExtractor",
    "InceptionClean",
    "InceptionLegacyPytorch",
    "InceptionLegacyTensorflow",
    "RandomFeatures",
    "build_extractor",
    "check_extractor",
    "extractor_kind",
    "extractors",
    "register",
]
