"""One run at a time: a teacher, a distillation, a score. The command line's `teacher`, `distill` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from tract_ray import training
from tract_ray.api.machine import shown, worker_on
from tract_ray.api.model import Model, load_model
from tract_ray.config import InputError, config_hash, parse_count, require
from tract_ray.data import load_dataset
from tract_ray.distillation import parse_time_schedule
from tract_ray.evaluation import Evaluator
from tract_ray.training import (
    EvaluationConfig,
    NetworkConfig,
    Paths,
    RunConfig,
    TeacherConfig,
    run_distillation,
    teacher_folder,
)
from tract_ray.training.paths import absolute, absolute_dataset
from tract_ray.training.recipes import method_recipe, teacher_recipe

Count = int | str
"""A number of images: 128000, "64k" or "96M"."""


def train_teacher(
    dataset: str = "digits",
    *,
    network: str | None = None,
    samples: Count | None = None,
    batch: int | None = None,
    lr: float | None = None,
    ema: float | None = None,
    conditional: bool = False,
    label_dropout: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    storage: str | Path | None = None,
    data_root: str | None = None,
    checkpoint_seconds: float = 60.0,
    device: str | torch.device | None = None,
    threads: int = 0,
    progress: bool | IO[str] = True,
) -> Model:
    """Train a teacher, or find the one that was trained with the same settings.

    What is None the data set's recipe chooses. `samples` are training images, `ema` the average of the weights,
    `label_dropout` the share of labels left out, for guidance. It is kept below `storage` (default `runs`) under the
    hash of its settings; `out` is a further model folder to write. `progress` is a stream, or whether stderr is told.

    >>> import tract_ray as tr
    >>> teacher = tr.train_teacher("digits", network="mlp_8x8_small", samples=1280, storage=runs, progress=False)
    >>> teacher.sample(2, steps=8).shape
    torch.Size([2, 1, 8, 8])
    """
    paths, worker = Paths.at(storage, data_root, checkpoint_seconds), worker_on(device, threads)
    config = teacher_recipe(
        absolute_dataset(dataset),
        network,
        conditional=conditional,
        seed=seed,
        samples=_count("samples", samples),
        batch=batch,
        lr=lr,
        ema=ema,
        label_dropout=label_dropout,
    )
    size = config.training.batch
    with shown("teacher", config.training.samples, progress) as seen:
        model = training.train_teacher(config, paths, worker, lambda step, loss: seen(step * size, f"loss {loss:.4f}"))
    folder = model.save(Path(out).expanduser()) if out else teacher_folder(config, paths)
    return Model(model, worker, folder)


def distill(
    dataset: str = "digits",
    *,
    method: str = "tract",
    teacher: str | Path | Model | None = None,
    teacher_samples: Count | None = None,
    network: str | None = None,
    student: str | None = None,
    student_from: str | Path = "teacher",
    time_schedule: str | Sequence[int] | None = None,
    samples: Count | None = None,
    batch: int | None = None,
    lr: float | None = None,
    evaluation_samples: int = EvaluationConfig.samples,
    rung_samples: int = EvaluationConfig.rung_samples,
    features: str = "",
    seed: int = 0,
    out: str | Path | None = None,
    storage: str | Path | None = None,
    data_root: str | None = None,
    checkpoint_seconds: float = 60.0,
    device: str | torch.device | None = None,
    threads: int = 0,
    progress: bool | IO[str] = True,
    settings: Mapping[str, Any] | None = None,
    **more: Any,
) -> Model:
    """Distil a teacher into a student of few steps, score it, and keep its model folder.

    What is None the data set's recipe chooses. `more` are settings of the method (`mu_s=0.9`, `mu_i_bank=(0, 0.99)`),
    as are `settings`, which may have names of arguments; None ones are left out. `teacher` is a model or its folder,
    without which the data set's own is trained; `student` a network preset (default: the teacher's); `student_from`
    says what it starts with: `teacher` (what they share), `random` or a model folder. `out` is the folder of the run,
    which the same call continues or finds finished (default: below `storage`, by the hash of the settings). The
    student's `result` has the distances by mu_i and what the run has cost.

    >>> import tract_ray as tr
    >>> student = tr.distill("digits", method="tract", time_schedule=(8, 4, 1), **tiny)
    >>> student.steps, student.metric, student.distance == student.result.distance
    (1, 'fid_digits', True)
    """
    paths, worker = Paths.at(storage, data_root, checkpoint_seconds), worker_on(device, threads)
    taught = _teacher(teacher, dataset, network, teacher_samples)
    changes = {
        "time_schedule": parse_time_schedule(time_schedule) if time_schedule else None,
        "samples": _count("samples", samples),
        "batch": batch,
        "lr": lr,
        **{name: tuple(v) if isinstance(v, list) else v for name, v in {**more, **(settings or {})}.items()},
    }
    start = str(student_from)
    run = RunConfig(
        teacher=taught,
        method=method_recipe(method, taught.dataset, **changes),
        student=NetworkConfig(name=student) if student else None,
        student_from=start if start in ("teacher", "random") else absolute(start),
        evaluation=EvaluationConfig(samples=evaluation_samples, rung_samples=rung_samples, features=features),
        seed=seed,
    )
    folder = Path(out).expanduser() if out else paths.storage / "distill" / f"{method}-{config_hash(run)}"
    size = run.method.batch
    with shown(method, run.method.samples, progress) as seen:
        result = run_distillation(
            run,
            paths,
            folder,
            worker=worker,
            report=lambda scores: seen(scores["samples"], f"distance {scores['distance']:.3f}"),
            on_step=lambda step, _, loss: seen(step * size, None),
        )
    return Model(training.load_model(result.student, "out"), worker, Path(result.student), result)


def evaluate(
    model: str | Path | Model,
    *,
    steps: int | None = None,
    samples: int = EvaluationConfig.samples,
    features: str = "",
    dataset: str | None = None,
    seed: int = 0,
    storage: str | Path | None = None,
    data_root: str | None = None,
    device: str | torch.device | None = None,
    threads: int = 0,
) -> dict[str, Any]:
    """Score a model or a model folder: its distance, with everything that must be named beside one.

    `samples` images from noise fixed by `seed` are compared with `dataset` (default: what the model was trained on).

    >>> import tract_ray as tr
    >>> score = tr.evaluate(tr.distill("digits", **tiny), samples=100, storage=runs)
    >>> score["metric"], score["samples"], score["steps"]
    ('fid_digits', 100, 1)
    """
    paths = Paths.at(storage, data_root)
    if not isinstance(model, Model):
        model = load_model(model, device=device, threads=threads)
    inner, place = model.network, model.worker.device
    config, count = EvaluationConfig(features=features, samples=samples, seed=seed), inner.check_steps(steps)
    name = absolute_dataset(dataset) if dataset else inner.dataset
    require(bool(name), "dataset", "this model does not say what it was trained on; name the data to compare with")
    data = load_dataset(name, data_root).to(place)
    require(data.shape == inner.shape, "dataset", f"{name} has images {data.shape}, the model makes {inner.shape}")
    evaluator = Evaluator(
        data, config.extractor(name), paths.cache, seed=seed, device=place, conditional=inner.num_classes > 0
    )
    distance = evaluator.distance(lambda noise, labels: inner.sample(noise, labels, count), samples)
    return {**evaluator.describe(samples), "steps": count or inner.steps, "distance": distance}


def _teacher(
    given: str | Path | Model | None, dataset: str, network: str | None, samples: Count | None
) -> TeacherConfig:
    """The teacher that was named, with its own data; else the data set's."""
    count = _count("teacher-samples", samples)
    if isinstance(given, Model):
        if given.folder is None:
            raise InputError("teacher: this model lies in no folder; save it and name that")
        given = given.folder
    if not given:
        return teacher_recipe(absolute_dataset(dataset), network, samples=count)
    own = training.load_model(given, "teacher").dataset
    return TeacherConfig(dataset=own or absolute_dataset(dataset), path=absolute(given))


def _count(field: str, count: Count | None) -> int | None:
    return parse_count(field, count) if count else None
