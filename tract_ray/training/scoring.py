"""How a run is scored on its way: every candidate of the method, from the same noise, at each mark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tract_ray.data import Dataset
from tract_ray.distillation import Method, Phase
from tract_ray.evaluation import Evaluator, Noise, fixed_noise, image_grid
from tract_ray.evaluation.sample_grid import grid_scale
from tract_ray.evaluation.score import Sampler
from tract_ray.training.model import Model, load_model
from tract_ray.training.paths import Paths
from tract_ray.training.record import MarkScore, Record
from tract_ray.training.run_config import EvaluationConfig
from tract_ray.training.worker import Worker

MakeModel = Callable[[nn.Module, dict[str, Any]], Model]
GRID_IMAGES = 64


def build_evaluator(
    config: EvaluationConfig, model: Model, dataset: Dataset, paths: Paths, worker: Worker, field: str = "teacher"
) -> Evaluator:
    """What scores the samples of `model`, and of others with its classes, against `dataset`.

    `InputError` (which names `field`) where the data set has other images or classes than the model.
    """
    model.check_fit(dataset, field)
    whole = config.on(dataset.name)
    return Evaluator(
        dataset,
        whole.features,
        paths.cache,
        metric=whole.metric,
        seed=whole.seed,
        device=worker.device,
        conditional=model.num_classes > 0,
        label_kind=whole.labels or "",
    )


def evaluation_marks(phases: Sequence[Phase], per_phase: int) -> set[int]:
    """Optimiser steps after which a run is scored: `per_phase` times in each phase, its end included."""
    return {p.start + max(1, round(p.steps * part / per_phase)) for p in phases for part in range(1, per_phase + 1)}


class Scorer:
    """Scores `method` at marks, and writes the record and the sample grids.

    Candidates (marks, averages of a bank) are chosen on one set of noise; after step `end`, the run's last, the chosen
    one is scored on another, which is what the run reports. With a single candidate there is nothing to choose, and
    only the latter happens. `last` is the latest score. A method that keeps its best evaluation is scored with all
    images at every mark; the network of the best one waits in `folder/best`, so that an interruption loses nothing.
    """

    def __init__(
        self,
        method: Method,
        evaluator: Evaluator,
        config: EvaluationConfig,
        folder: Path,
        worker: Worker,
        make_model: MakeModel,
        end: int,
    ) -> None:
        self.method, self.evaluator, self.config = method, evaluator, config.on(evaluator.dataset.name)
        self.folder, self.worker, self.make_model, self.end = folder, worker, make_model, end
        self.samples = self.config.samples or 0
        self.last: MarkScore | None = None

    def at_mark(self, step: int, record: Record) -> None:
        """Score after optimiser step `step`, into the record."""
        seen = step * self.method.config.batch
        self.last = self._scored(final=step == self.end)
        record.score(seen, self.last)
        if self.worker.leads:
            self._grid(self.last.mu_i, seen, record)
            if self.method.keeps_best:
                self._keep(self.last, seen)

    def _scored(self, final: bool) -> MarkScore:
        method = self.method
        images = self.samples if final or method.keeps_best else self.config.rung_samples
        candidates = method.candidates()
        reports = final and not method.keeps_best  # a kept one is reported when the run is over
        noise: Noise = "report" if reports and len(candidates) == 1 else "select"
        distances = {mu: self._distance(self._sampler(network), images, noise) for mu, network in candidates.items()}
        own = self.config.select == "own"
        mu = next(iter(distances)) if own else min(distances, key=distances.__getitem__)
        distance = distances[mu]
        if reports and noise == "select":
            noise, distance = "report", self._distance(self._sampler(candidates[mu]), images, "report")
        steps = method.phase.student_steps
        return MarkScore(self.evaluator.metric, distance, mu, steps, images, noise, distances)

    def _sampler(self, network: nn.Module) -> Sampler:
        network.eval()
        steps = self.method.phase.student_steps
        return lambda noise, labels: self.method.sample(network, noise, steps, labels)

    def _distance(self, sampler: Sampler, count: int, noise: Noise) -> float:
        """Distance of `count` images, which are shared out among the workers."""
        start, share = self.worker.share(count)
        features = self.evaluator.features(sampler, start, share, noise)
        return self.evaluator.distance_of(np.concatenate(self.worker.gather(features)))

    def chosen(self) -> tuple[Model, MarkScore]:
        """The run's student and what it reports: the best of the last scores, or of all where the method keeps it."""
        if not self.method.keeps_best:
            assert self.last is not None
            return self._model(self.last), self.last
        model = load_model(self.folder / "best").to(self.worker.device)
        distances = {float(mu): d for mu, d in model.about["distances"].items()}
        distance = self._distance(model.sample, self.samples, "report")
        score = MarkScore(
            self.evaluator.metric, distance, model.about["mu_i"], model.steps, self.samples, "report", distances
        )
        model.about |= {"distance": distance, "noise": "report"}
        return model, score

    def _model(self, score: MarkScore, **more: Any) -> Model:
        about = {"mu_i": score.mu_i, "metric": score.metric, "distance": score.distance, "noise": score.noise, **more}
        return self.make_model(self.method.candidates()[score.mu_i], about)

    def _keep(self, score: MarkScore, seen: int) -> None:
        known = load_model(self.folder / "best").about["distance"] if (self.folder / "best").is_dir() else float("inf")
        if score.distance < known:
            distances = {repr(m): d for m, d in score.distances.items()}
            self._model(score, distances=distances, samples=seen).save(self.folder / "best")

    def _grid(self, mu: float, seen: int, record: Record) -> None:
        noise = fixed_noise(self.evaluator.seed, 0, GRID_IMAGES, self.evaluator.dataset.shape).to(self.worker.device)
        labels = self.evaluator.labels(0, GRID_IMAGES)
        network = self.method.candidates()[mu]
        images = self.method.sample(network, noise, self.method.phase.student_steps, labels)
        record.image(seen, "samples", image_grid(images, 8, max(1, grid_scale(noise.shape[-1]) // 2)))
