"""One distillation, from its configuration to a scored student: what a trial, a worker and the CLI all call."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tract_ray.config import config_hash, flatten, require, to_dict
from tract_ray.data import load_dataset
from tract_ray.distillation import Phase, methods
from tract_ray.evaluation import Evaluator, fixed_noise
from tract_ray.files import read_json, write_text
from tract_ray.networks import count_parameters
from tract_ray.training.checkpoint import CHECKPOINT
from tract_ray.training.checks import check_run
from tract_ray.training.model import Model
from tract_ray.training.paths import Paths
from tract_ray.training.run_config import RunConfig
from tract_ray.training.scoring import Scorer
from tract_ray.training.staged import Report, StagedRun
from tract_ray.training.stages import StageStore, stages_of
from tract_ray.training.student import initial_student
from tract_ray.training.teacher import teacher_folder, train_teacher
from tract_ray.training.worker import Worker


@dataclass(frozen=True)
class RunResult:
    """What a finished run has to show. `distances` are by mu_i; `distance` is the smallest, of `mu_i`.

    `trained` counts the images that this run trained itself, of `samples`: the others came with stages that were
    there. `device_seconds` is the time of all its workers, evaluation included.
    """

    metric: str
    distance: float
    mu_i: float
    distances: dict[float, float]
    steps: int
    samples: int
    parameters: int
    seconds_per_image: float
    trained: int
    seconds: float
    device_seconds: float
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
    reuse: bool = True,
) -> RunResult:
    """Distil, evaluate and save; continues from `folder` what was interrupted, and returns at once what was finished.

    Phases that any run has trained before are taken over from the cache, bit for bit, unless `reuse` is off.

    Every worker of a run calls this with the same arguments. `report` is told the scores at each mark: `samples`
    seen, `distance` (the best of the bank), its `mu_i`, whether that is the `finished` run's, and what it has cost so
    far (`trained` images, `device_seconds`). `on_step` is told (step, last step, loss).
    """
    started = time.perf_counter()
    worker = worker or Worker()
    key = config_hash(config)
    if (folder / "result.json").is_file():
        result = RunResult.from_json(read_json(folder / "result.json", "output"))
        require(result.key == key, "output", f"{folder} holds the result of another configuration; choose another")
        if report:
            report(_final_report(result))
        return result

    teacher = check_run(config, paths, worker.world)
    all_found = worker.agree(teacher is not None)
    if teacher is None or not all_found:
        teacher = train_teacher(config.teacher, paths, worker)
    teacher.to(worker.device)
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
    network, student = initial_student(config, teacher)
    method = methods[config.method.kind](config.method, teacher.denoiser, student.to(worker.device))
    evaluator = Evaluator(
        dataset,
        config.evaluation.extractor(dataset_name),
        paths.cache,
        seed=config.evaluation.seed,
        device=worker.device,
        conditional=teacher.num_classes > 0,
    )

    def make_model(candidate: nn.Module, about: dict[str, Any]) -> Model:
        steps = method.phase.student_steps
        origin = {"config": to_dict(config), "teacher": str(teacher_folder(config.teacher, paths))}
        return Model(
            denoiser=method.trained["student"].view_of(candidate),
            network=network,
            shape=dataset.shape,
            steps=steps,
            num_classes=teacher.num_classes,
            times=method.sampling_times(steps).tolist(),
            sampler=method.sampler,
            dataset=dataset_name,
            about={**origin, **about},
        )

    if worker.leads:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", json.dumps({"key": key, "config": to_dict(config)}, indent=2))
        method.keep_averages(folder / "averages")
    scorer = Scorer(method, evaluator, config.evaluation, folder, worker, make_model)
    total = stages_of(config)[-1].end
    ended = StagedRun(
        config,
        method,
        dataset,
        scorer,
        StageStore(paths) if reuse else None,
        folder,
        worker,
        evaluation_marks(method.phases, config.evaluation.per_phase),
        report,
        (lambda step, loss: on_step(step, total, loss)) if on_step else None,
    ).run()
    worker.gather(None)  # what the leading worker wrote is there for all
    chosen = scorer.chosen()
    result = RunResult(
        metric=evaluator.metric,
        distance=chosen.about["distance"],
        mu_i=chosen.about["mu_i"],
        distances=scorer.distances,
        steps=chosen.steps,
        samples=total * config.method.batch,
        parameters=count_parameters(chosen.denoiser.module),
        seconds_per_image=latency(chosen, worker.device),
        trained=ended.trained,
        seconds=time.perf_counter() - started,
        device_seconds=ended.seconds,
        student=str(folder / "student"),
        key=key,
        evaluation=evaluator.describe(config.evaluation.samples),
    )
    if worker.leads:
        chosen.save(folder / "student")
        write_text(folder / "result.json", json.dumps(result.to_json(), indent=2) + "\n")
        (folder / CHECKPOINT).unlink(missing_ok=True)  # four times the weights, and nothing needs it any more
    worker.gather(None)  # no worker reports before the result is on disk
    if report:
        report(_final_report(result))
    return result


def latency(model: Model, device: torch.device, images: int = 64, repeats: int = 3) -> float:
    """Seconds an image of the model's own sampler, in a batch of `images`: the quickest of `repeats`."""
    noise = fixed_noise(0, 0, images, model.shape).to(device)
    labels = torch.zeros(images, dtype=torch.int64, device=device) if model.num_classes else None
    took = []
    for _ in range(repeats + 1):  # the first one warms up
        begun = time.perf_counter()
        model.to(device).sample(noise, labels)[0, 0, 0, 0].item()  # waits for the device
        took.append(time.perf_counter() - begun)
    return min(took[1:]) / images


def _final_report(result: RunResult) -> dict[str, Any]:
    return {
        "samples": result.samples,
        "distance": result.distance,
        "mu_i": result.mu_i,
        "finished": True,
        "trained": result.trained,
        "device_seconds": result.device_seconds,
        "parameters": result.parameters,
        "seconds_per_image": result.seconds_per_image,
        "seconds": result.seconds,
        "distances": {repr(mu): d for mu, d in result.distances.items()},
    }


def run_parameters(config: RunConfig) -> dict[str, Any]:
    """Every setting of a run by its dotted name, with the hash and the seed: MLflow's parameters."""
    return {**flatten(config), "config_hash": config_hash(config)}
