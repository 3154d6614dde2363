"""How a run is scored on its way: every candidate of the method, from the same noise, at each mark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from tract_ray.training.record import MarkScore, Record, by_mu, by_text
from tract_ray.training.run_config import EvaluationConfig
from tract_ray.training.worker import Worker

MakeModel = Callable[[nn.Module, dict[str, Any]], Model]
GRID_IMAGES = 64
BEST_BANK = "best-averages"


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


def kept_average(run: Path, mu: float) -> Path:
    """Where a run whose method keeps its best evaluation keeps that one's average at `mu`."""
    return run / BEST_BANK / f"{mu!r}"


class Scorer:
    """Scores `method` at marks, and writes the record and the sample grids.

    Candidates (marks, averages of a bank) are chosen on one set of noise; after step `end`, the run's last, the chosen
    one is scored on another, which is what the run reports. A single candidate is scored on both, too: a sweep chooses
    among runs. `last` is the latest score. A method that keeps its best evaluation is scored with all images at every
    mark; the network of the best one waits in `folder/best`, beside it all of its bank, so that an interruption loses
    nothing.
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
        samplers = {mu: self._sampler(network) for mu, network in method.candidates().items()}
        distances = {mu: self._distance(sampler, images, "select") for mu, sampler in samplers.items()}
        own = self.config.select == "own"
        mu = next(iter(distances)) if own else min(distances, key=distances.__getitem__)
        score = MarkScore(
            self.evaluator.metric, distances[mu], mu, method.phase.student_steps, images, "select", distances
        )
        # A kept one is reported when the run is over.
        return self._reported(score, samplers) if final and not method.keeps_best else score

    def _reported(self, score: MarkScore, samplers: Mapping[float, Sampler]) -> MarkScore:
        """`score` with its distance on fresh noise; with those of all `samplers`, by mu_i, where they are asked for."""
        wanted = samplers if self.config.report == "all" else {score.mu_i: samplers[score.mu_i]}
        reported = {mu: self._distance(sampler, self.samples, "report") for mu, sampler in wanted.items()}
        return replace(score, distance=reported[score.mu_i], noise="report", samples=self.samples, reported=reported)

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
        mu, distances = model.about["mu_i"], by_mu(model.about["distances"])
        chosen = MarkScore(self.evaluator.metric, distances[mu], mu, model.steps, self.samples, "select", distances)
        others = {m: kept_average(self.folder, m) for m in distances if m != mu and self.config.report == "all"}
        models = {mu: model} | {m: load_model(folder).to(self.worker.device) for m, folder in others.items()}
        score = self._reported(chosen, {m: each.sample for m, each in models.items()})
        model.about |= {"distance": score.distance, "noise": "report"}
        return model, score

    def _model(self, score: MarkScore, **more: Any) -> Model:
        about = {"mu_i": score.mu_i, "metric": score.metric, "distance": score.distance, "noise": score.noise, **more}
        return self.make_model(self.method.candidates()[score.mu_i], about)

    def _keep(self, score: MarkScore, seen: int) -> None:
        known = load_model(self.folder / "best").about["distance"] if (self.folder / "best").is_dir() else float("inf")
        if score.distance < known:
            if len(score.distances) > 1:  # before `best`, by which one knows that it is all there
                for mu, distance in score.distances.items():
                    self._model(replace(score, mu_i=mu, distance=distance)).save(kept_average(self.folder, mu))
            self._model(score, distances=by_text(score.distances), samples=seen).save(self.folder / "best")

    def _grid(self, mu: float, seen: int, record: Record) -> None:
        noise = fixed_noise(self.evaluator.seed, 0, GRID_IMAGES, self.evaluator.dataset.shape).to(self.worker.device)
        labels = self.evaluator.labels(0, GRID_IMAGES)
        network = self.method.candidates()[mu]
        images = self.method.sample(network, noise, self.method.phase.student_steps, labels)
        record.image(seen, "samples", image_grid(images, 8, max(1, grid_scale(noise.shape[-1]) // 2)))
