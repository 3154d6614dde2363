"""Data sets by name: uint8 images in memory or mapped from a file, and the order in which a run sees them."""

from tract_ray.data.dataset import Dataset
from tract_ray.data.order import sample_indices
from tract_ray.data.registry import (
    DatasetInfo,
    check_dataset,
    dataset_fingerprint,
    dataset_info,
    datasets,
    load_dataset,
)

__all__ = [
    "Dataset",
    "DatasetInfo",
    "check_dataset",
    "dataset_fingerprint",
    "dataset_info",
    "datasets",
    "load_dataset",
    "sample_indices",
]
