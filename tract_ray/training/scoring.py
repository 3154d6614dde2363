"""How a run is scored on its way: every candidate of the method, from the same noise, at each mark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tract_ray.data import Dataset
from tract_ray.distillation import Method, Phase
from tract_ray.evaluation import Evaluator, Statistics, fixed_noise, frechet_distance, image_grid
from tract_ray.evaluation.sample_grid import grid_scale
from tract_ray.training.model import Model, load_model
from tract_ray.training.paths import Paths
from tract_ray.training.record import Record
from tract_ray.training.run_config import EvaluationConfig
from tract_ray.training.worker import Worker

MakeModel = Callable[[nn.Module, dict[str, Any]], Model]
GRID_IMAGES = 64


def build_evaluator(
    config: EvaluationConfig, model: Model, dataset: Dataset, paths: Paths, worker: Worker
) -> Evaluator:
    """What scores the samples of `model`, and of others with its classes, against `dataset`."""
    return Evaluator(
        dataset,
        config.extractor(dataset.name),
        paths.cache,
        seed=config.seed,
        device=worker.device,
        conditional=model.num_classes > 0,
    )


def evaluation_marks(phases: Sequence[Phase], per_phase: int) -> set[int]:
    """Optimiser steps after which a run is scored: `per_phase` times in each phase, its end included."""
    return {p.start + max(1, round(p.steps * part / per_phase)) for p in phases for part in range(1, per_phase + 1)}


class Scorer:
    """Scores `method` at marks, and writes the record and the sample grids.

    `distances` are the latest scores by mu_i. A method that keeps its best evaluation is scored with all images at
    every mark; the network of the best one waits in `folder/best`, so that an interruption loses nothing.
    """

    def __init__(
        self,
        method: Method,
        evaluator: Evaluator,
        config: EvaluationConfig,
        folder: Path,
        worker: Worker,
        make_model: MakeModel,
    ) -> None:
        self.method, self.evaluator, self.config = method, evaluator, config
        self.folder, self.worker, self.make_model = folder, worker, make_model
        self.distances: dict[float, float] = {}

    def score(self, count: int) -> dict[float, float]:
        """Distance of each candidate by mu_i, of `count` images; the images are shared out among the workers."""
        start, share = self.worker.share(count)
        steps, scores = self.method.phase.student_steps, {}
        for mu, network in self.method.candidates().items():
            network.eval()
            features = self.evaluator.features(
                lambda noise, labels, net=network: self.method.sample(net, noise, steps, labels),  # type: ignore[misc]
                start,
                share,
            )
            everyone = np.concatenate(self.worker.gather(features))
            scores[mu] = frechet_distance(Statistics.of(everyone), self.evaluator.reference)
        return scores

    def at_mark(self, step: int, record: Record) -> None:
        """Score after optimiser step `step`, into the record."""
        method, seen = self.method, step * self.method.config.batch
        final = step == method.phases[-1].end
        whole = final or method.keeps_best
        self.distances = self.score(self.config.samples if whole else self.config.rung_samples)
        mu, distance = self.best()
        metric = self.evaluator.metric
        record.metrics(seen, {metric: distance, "mu_i_best": mu, "steps": method.phase.student_steps})
        record.metrics(seen, {f"{metric}/mu_i_{mu:.6g}": d for mu, d in self.distances.items()})
        if self.worker.leads:
            self._grid(mu, seen, record)
            if method.keeps_best:
                self._keep(mu, distance, seen)

    def best(self) -> tuple[float, float]:
        """mu_i and distance of the best candidate of the latest scores, or of the method's own."""
        if self.config.select == "own":
            return next(iter(self.distances.items()))
        mu = min(self.distances, key=self.distances.__getitem__)
        return mu, self.distances[mu]

    def chosen(self) -> Model:
        """The run's student: the best candidate of the last scores, or of all scores where the method keeps it."""
        if self.method.keeps_best:
            model = load_model(self.folder / "best")
            self.distances = {float(mu): d for mu, d in model.about["distances"].items()}
            return model
        if not self.distances:  # killed between the last checkpoint and the result
            self.distances = self.score(self.config.samples)
        return self._model(*self.best())

    def _model(self, mu: float, distance: float, **more: Any) -> Model:
        about = {"mu_i": mu, "metric": self.evaluator.metric, "distance": distance, **more}
        return self.make_model(self.method.candidates()[mu], about)

    def _keep(self, mu: float, distance: float, seen: int) -> None:
        known = load_model(self.folder / "best").about["distance"] if (self.folder / "best").is_dir() else float("inf")
        if distance < known:
            distances = {repr(m): d for m, d in self.distances.items()}
            self._model(mu, distance, distances=distances, samples=seen).save(self.folder / "best")

    def _grid(self, mu: float, seen: int, record: Record) -> None:
        noise = fixed_noise(self.evaluator.seed, 0, GRID_IMAGES, self.evaluator.dataset.shape).to(self.worker.device)
        labels = self.evaluator.labels(0, GRID_IMAGES)
        network = self.method.candidates()[mu]
        images = self.method.sample(network, noise, self.method.phase.student_steps, labels)
        record.image(seen, "samples", image_grid(images, 8, max(1, grid_scale(noise.shape[-1]) // 2)))
