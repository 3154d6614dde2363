"""The code of a logged student: MLflow runs this file and hands it the model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from tract_ray.evaluation import fixed_noise
from tract_ray.training.model import load_model


class Student(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """`predict([seed, …])` -> one image for each seed, `(N, C, H, W)` in [-1, 1]."""

    def load_context(self, context: Any) -> None:
        self.model = load_model(Path(context.artifacts["student"]), "student")

    def predict(self, context: Any, model_input: list[int], params: dict[str, Any] | None = None) -> np.ndarray:
        import torch

        noise = torch.cat([fixed_noise(int(seed), 0, 1, self.model.shape) for seed in model_input])
        images: np.ndarray = self.model.sample(noise).float().numpy()
        return images


mlflow.models.set_model(Student())
