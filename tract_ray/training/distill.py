"""One distillation, from its configuration to a scored student: what a trial, a worker and the CLI all call."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tract_ray.config import config_hash, flatten, require, to_dict
from tract_ray.data import load_dataset
from tract_ray.diffusion import Denoiser
from tract_ray.distillation import Method, Phase, copy_shared_layers, methods
from tract_ray.evaluation import Evaluator, Statistics, fixed_noise, frechet_distance, image_grid
from tract_ray.evaluation.grid import grid_scale
from tract_ray.files import read_json, write_text
from tract_ray.networks import count_parameters
from tract_ray.training.loop import train
from tract_ray.training.model import Model, load_model
from tract_ray.training.paths import Paths
from tract_ray.training.record import Record
from tract_ray.training.run_config import NetworkConfig, RunConfig, build_for
from tract_ray.training.teacher import teacher_folder, train_teacher
from tract_ray.training.worker import Worker

Report = Callable[[dict[str, Any]], None]
GRID_IMAGES = 64


@dataclass(frozen=True)
class RunResult:
    """What a finished run has to show. `distances` are by mu_i; `distance` is the smallest, of `mu_i`."""

    metric: str
    distance: float
    mu_i: float
    distances: dict[float, float]
    steps: int
    samples: int
    parameters: int
    seconds: float
    student: str
    key: str
    evaluation: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data, also what `result.json` holds."""
        return {**asdict(self), "distances": {repr(mu): d for mu, d in self.distances.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunResult:
        """The inverse of `to_json`."""
        return cls(**{**data, "distances": {float(mu): d for mu, d in data["distances"].items()}})


def evaluation_marks(phases: Sequence[Phase], per_phase: int) -> set[int]:
    """Optimiser steps after which a run is scored: `per_phase` times in each phase, its end included."""
    return {p.start + max(1, round(p.steps * part / per_phase)) for p in phases for part in range(1, per_phase + 1)}


def run_distillation(
    config: RunConfig,
    paths: Paths,
    folder: Path,
    *,
    worker: Worker | None = None,
    report: Report | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> RunResult:
    """Distil, evaluate and save; continues from `folder` what was interrupted, and returns at once what was finished.

    Every worker of a run calls this with the same arguments. `report` is told the scores at each mark: `samples`
    seen, `distance` (the best of the bank), its `mu_i`, and whether that is the `finished` run's. `on_step` is told
    (step, last step, loss).
    """
    started = time.perf_counter()
    worker = worker or Worker()
    key = config_hash(config)
    if (folder / "result.json").is_file():
        result = RunResult.from_json(read_json(folder / "result.json", "output"))
        require(result.key == key, "output", f"{folder} holds the result of another configuration; choose another")
        if report:
            report(_final_report(result, config))
        return result

    require(
        config.method.batch % worker.world == 0,
        "batch",
        f"{config.method.batch} does not divide among {worker.world} workers",
    )
    teacher = train_teacher(config.teacher, paths, worker).to(worker.device)
    dataset_name = teacher.dataset or config.teacher.dataset
    dataset = load_dataset(dataset_name, paths.data_root).to(worker.device)
    require(
        dataset.shape == teacher.shape,
        "teacher",
        f"makes images of shape {teacher.shape}, but {dataset_name} has {dataset.shape}",
    )
    require(
        teacher.num_classes in (0, dataset.num_classes),
        "teacher",
        f"has {teacher.num_classes} classes, but {dataset_name} has {dataset.num_classes}",
    )
    network_config, student = _student(config, teacher)
    method = methods[config.method.kind](config.method, teacher.denoiser, student.to(worker.device))
    evaluator = Evaluator(
        dataset,
        config.evaluation.extractor(dataset_name),
        paths.cache,
        seed=config.evaluation.seed,
        device=worker.device,
        conditional=teacher.num_classes > 0,
    )
    if worker.leads:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", json.dumps({"key": key, "config": to_dict(config)}, indent=2))
    marks = evaluation_marks(method.phases, config.evaluation.per_phase)
    total = method.phases[-1].end
    distances: dict[float, float] = {}

    def on_mark(step: int, record: Record) -> None:
        nonlocal distances
        seen, final = step * config.method.batch, step == total
        count = config.evaluation.samples if final else config.evaluation.rung_samples
        steps = method.phase.student_steps
        distances = score_candidates(method, evaluator, steps, count, worker)
        best = min(distances, key=distances.__getitem__)
        record.metrics(seen, {f"{evaluator.metric}": distances[best], "mu_i_best": best, "steps": steps})
        record.metrics(seen, {f"{evaluator.metric}/mu_i_{mu:.6g}": d for mu, d in distances.items()})
        if worker.leads:
            noise = fixed_noise(evaluator.seed, 0, GRID_IMAGES, dataset.shape).to(worker.device)
            labels = evaluator.labels(0, GRID_IMAGES)
            images = method.sample(method.candidates()[best], noise, steps, labels)
            record.image(seen, "samples", image_grid(images, 8, grid_scale(dataset.shape[-1]) // 2 or 1))
        if report and not final:
            report({"samples": seen, "distance": distances[best], "mu_i": best, "finished": False})

    train(
        method,
        dataset,
        seed=config.seed,
        key=key,
        folder=folder,
        worker=worker,
        marks=marks,
        on_mark=on_mark,
        on_step=(lambda step, loss: on_step(step, total, loss)) if on_step else None,
    )
    if not distances:  # killed between the last checkpoint and the result
        steps = method.phase.student_steps
        distances = score_candidates(method, evaluator, steps, config.evaluation.samples, worker)
    best = min(distances, key=distances.__getitem__)
    result = RunResult(
        metric=evaluator.metric,
        distance=distances[best],
        mu_i=best,
        distances=distances,
        steps=method.phase.student_steps,
        samples=total * config.method.batch,
        parameters=count_parameters(student),
        seconds=time.perf_counter() - started,
        student=str(folder / "student"),
        key=key,
        evaluation=evaluator.describe(config.evaluation.samples),
    )
    if worker.leads:
        Model(
            denoiser=Denoiser(method.candidates()[best], teacher.denoiser.schedule, teacher.denoiser.prediction),
            network=network_config,
            shape=dataset.shape,
            steps=result.steps,
            num_classes=teacher.num_classes,
            times=method.sampling_times(result.steps).tolist(),
            dataset=dataset_name,
            about={
                "config": to_dict(config),
                "teacher": str(teacher_folder(config.teacher, paths)),
                "mu_i": best,
                "metric": evaluator.metric,
                "distance": result.distance,
            },
        ).save(folder / "student")
        write_text(folder / "result.json", json.dumps(result.to_json(), indent=2) + "\n")
    worker.gather(None)  # no worker reports before the result is on disk
    if report:
        report(_final_report(result, config))
    return result


def score_candidates(
    method: Method, evaluator: Evaluator, steps: int, count: int, worker: Worker
) -> dict[float, float]:
    """Distance of each of the method's candidates, by mu_i; the images are shared out among the workers."""
    start, share = worker.share(count)
    scores = {}
    for mu, network in method.candidates().items():
        network.eval()
        features = evaluator.features(lambda z, y, net=network: method.sample(net, z, steps, y), start, share)  # type: ignore[misc]
        everyone = np.concatenate(worker.gather(features))
        scores[mu] = frechet_distance(Statistics.of(everyone), evaluator.reference)
    return scores


def _student(config: RunConfig, teacher: Model) -> tuple[NetworkConfig, torch.nn.Module]:
    """The student's network as it starts: with the teacher's weights, with those of a model folder, or with its own."""
    inherits = config.student_from == "teacher"
    if inherits and config.student in (None, teacher.network):
        return teacher.network, copy.deepcopy(teacher.denoiser.module).requires_grad_(True)
    start = None if inherits or config.student_from == "random" else load_model(config.student_from, "student_from")
    network = config.student or (start.network if start else teacher.network)
    student: torch.nn.Module = build_for(
        network, teacher.shape, teacher.denoiser.prediction, teacher.num_classes, seed=config.seed
    )
    if inherits:
        copy_shared_layers(teacher.denoiser.module, student)
    elif start:
        mismatch = _first_difference(start, teacher, network)
        require(not mismatch, "student_from", f"{config.student_from} does not suit this run: {mismatch}")
        student.load_state_dict(start.denoiser.module.state_dict())
    return network, student


def _first_difference(start: Model, teacher: Model, network: NetworkConfig) -> str:
    """What keeps a model from being the start of this teacher's student, "" if nothing does."""
    pairs = {
        "network": (to_dict(start.network), to_dict(network)),
        "image shape": (start.shape, teacher.shape),
        "classes": (start.num_classes, teacher.num_classes),
        "prediction": (start.denoiser.prediction, teacher.denoiser.prediction),
        "schedule": (start.denoiser.schedule, teacher.denoiser.schedule),
    }
    return next((f"its {name} is {own}, not {wanted}" for name, (own, wanted) in pairs.items() if own != wanted), "")


def _final_report(result: RunResult, config: RunConfig) -> dict[str, Any]:
    return {
        "samples": result.samples,
        "distance": result.distance,
        "mu_i": result.mu_i,
        "finished": True,
        "seconds": result.seconds,
        "distances": {repr(mu): d for mu, d in result.distances.items()},
    }


def run_parameters(config: RunConfig) -> dict[str, Any]:
    """Every setting of a run by its dotted name, with the hash and the seed: MLflow's parameters."""
    return {**flatten(config), "config_hash": config_hash(config)}
