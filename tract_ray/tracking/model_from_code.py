"""The code of a logged student: MLflow runs this file, with this package beside it, and hands it the model folder."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch

from tract_ray.config import InputError, require
from tract_ray.evaluation import fixed_noise, image_grid
from tract_ray.training.model import Model, load_model

MOST = 1024
"""Images of one request."""


class Student(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """`predict([{"seed": 0, "count": 4}, …])` -> the images that `tract-ray sample` makes of each, one after the other.

    A request may also name a `label` (default: the classes in turn) and `steps`. Of the parameter `format`, "arrays"
    gives `(N, C, H, W)` in [-1, 1] and "png" a base64 text for each image.
    """

    def load_context(self, context: Any) -> None:
        self.model = load_model(Path(context.artifacts["student"]), "student")

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow reads type hints
        rows = model_input.to_dict("records") if hasattr(model_input, "to_dict") else model_input
        asked = [{name: int(v) for name, v in row.items() if v is not None and v == v} for row in rows]
        total = sum(row.get("count", 1) for row in asked)
        require(0 < total <= MOST, "count", f"must be from 1 to {MOST} images in all, got {total}")
        images = torch.cat([draw(self.model, row) for row in asked]).float()
        form = (params or {}).get("format", "arrays")
        if form == "arrays":
            return images.numpy()
        require(form == "png", "format", f"must be arrays or png, got {form!r}")
        return np.array([_png(image) for image in images])


def draw(model: Model, request: Mapping[str, int]) -> torch.Tensor:
    """Images `(count, C, H, W)` of one request."""
    count, label, classes = request.get("count", 1), request.get("label"), model.num_classes
    require(count >= 1, "count", f"must be at least 1, got {count}")
    if label is not None and not 0 <= label < classes:
        raise InputError(f"label: must be in 0..{classes - 1}, got {label}" if classes else "label: it has no classes")
    labels = None
    if classes:
        labels = torch.arange(count) % classes if label is None else torch.full((count,), label)
    return model.sample(
        fixed_noise(request["seed"], 0, count, model.shape), labels, model.check_steps(request.get("steps"))
    )


def _png(image: torch.Tensor) -> str:
    file = io.BytesIO()
    image_grid(image[None], 1).crop((2, 2, 2 + image.shape[-1], 2 + image.shape[-2])).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


if __name__ != "tract_ray.tracking.model_from_code":  # MLflow runs it under a name of its own
    mlflow.models.set_model(Student())
