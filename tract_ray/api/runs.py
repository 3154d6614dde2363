"""One run at a time: a teacher, a distillation, a score. The command line's `teacher`, `distill` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import torch

from tract_ray import disk, training
from tract_ray.api.machine import shown, worker_on
from tract_ray.api.model import Model, load_model
from tract_ray.api.plan import planned
from tract_ray.config import config_hash, parse_count, require
from tract_ray.data import load_dataset
from tract_ray.files import require_local, require_writable
from tract_ray.training import (
    EvaluationConfig,
    Paths,
    RunConfig,
    Worker,
    check_run,
    run_distillation,
    teacher_folder,
)
from tract_ray.training.keys import inputs_key
from tract_ray.training.model import check_free
from tract_ray.training.paths import absolute_dataset
from tract_ray.training.recipes import find_recipe, teacher_recipe
from tract_ray.training.scoring import build_evaluator

Count = int | str
"""A number of images: 128000, "64k" or "96M"."""


def train_teacher(
    dataset: str | None = None,
    *,
    recipe: str | Path | None = None,
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
    on_disk_full: str = "wait",
    micro_batch: int = 0,
    device: str | torch.device | None = None,
    threads: int = 0,
    progress: bool | IO[str] = True,
) -> Model:
    """Train a teacher, or find the one that was trained with the same settings.

    What is None the `recipe` chooses (a name of `tract_ray.training.recipes.recipes`, or a file), without one that of
    the data set (default: digits). `samples` are training images, `ema` the average of the weights,
    `label_dropout` the share of labels left out, for guidance. It is kept below `storage` (default `runs`) under the
    hash of its settings; `out` is a further model folder to write. On a full disk it waits for room, or it fails
    (`on_disk_full`); of a batch, `micro_batch` images are computed at a time (0: all). `progress` is a stream, or
    whether stderr is told.

    >>> import tract_ray as tr
    >>> teacher = tr.train_teacher("digits", network="mlp_8x8_small", samples=1280, storage=runs, progress=False)
    >>> teacher.sample(2, steps=8).shape
    torch.Size([2, 1, 8, 8])
    """
    paths = Paths.at(storage, data_root, checkpoint_seconds, on_disk_full, micro_batch)
    worker = worker_on(device, threads)
    own: dict[str, Any] = {"batch": batch, "lr": lr, "ema": ema, "label_dropout": label_dropout}
    own["samples"], name = _count("samples", samples), absolute_dataset(dataset) if dataset else None
    if recipe:
        chosen = find_recipe(recipe).teacher_on(name, network, **own)
        config = replace(chosen, conditional=conditional or chosen.conditional, seed=seed)
    else:
        config = teacher_recipe(name or "digits", network, conditional=conditional, seed=seed, **own)
    if out:
        check_free(Path(out).expanduser())  # before hours of training
    size = config.training.batch
    disk.on_disk_full(paths.on_disk_full)
    with shown("teacher", config.training.samples, progress) as (seen, say):
        model = training.train_teacher(
            config, paths, worker, lambda step, loss: seen(step * size, f"loss {loss:.4f}"), say
        )
    folder = model.save(Path(out).expanduser()) if out else teacher_folder(config, paths)
    return Model(model, worker, folder)


def distill(
    dataset: str | None = None,
    *,
    recipe: str | Path | None = None,
    method: str | None = None,
    teacher: str | Path | Model | None = None,
    teacher_samples: Count | None = None,
    network: str | None = None,
    student: str | None = None,
    students: str | Sequence[str | None] = (),
    student_from: str | Path = "teacher",
    time_schedule: str | Sequence[int] | None = None,
    samples: Count | None = None,
    batch: int | None = None,
    lr: float | None = None,
    evaluation_samples: int | None = None,
    rung_samples: int | None = None,
    features: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    storage: str | Path | None = None,
    data_root: str | None = None,
    checkpoint_seconds: float = 60.0,
    on_disk_full: str = "wait",
    micro_batch: int = 0,
    device: str | torch.device | None = None,
    threads: int = 0,
    progress: bool | IO[str] = True,
    settings: Mapping[str, Any] | None = None,
    **more: Any,
) -> Model:
    """Distil a teacher into a student of few steps, score it, and keep its model folder.

    What is None the `recipe` chooses (a name or a file, see `tract-ray recipes`), without one that of the data set
    (default: digits) for the `method` (default: `tract`, or `tract_edm` for a teacher of EDM's process). `more` are
    settings of the method (`mu_s=0.9`, `mu_i_bank=(0, 0.99)`), as are `settings`, which may have names of arguments;
    None ones are left out. `teacher` is a model or its folder, without which the data set's own is trained; `student` a
    network preset (default: the teacher's); `students` one for each phase, None or "-" for that of the phase before
    (`"-,mlp_8x8_small,-"`); `student_from` says what it starts with: `teacher` (what they share), `random` or a model
    folder. `out` is the folder of the run, which the same call continues or finds finished (default: below `storage`,
    by the hash of the settings); `on_disk_full` and `micro_batch` are those of `train_teacher`. The student's `result`
    has the distances by mu_i and what the run has cost.

    >>> import tract_ray as tr
    >>> student = tr.distill("digits", method="tract", time_schedule=(8, 4, 1), **tiny)
    >>> student.steps, student.metric, student.distance == student.result.distance
    (1, 'fid_digits', True)
    """
    paths = Paths.at(storage, data_root, checkpoint_seconds, on_disk_full, micro_batch)
    worker = worker_on(device, threads)
    run = planned(
        dataset,
        recipe=recipe,
        method=method,
        teacher=teacher,
        teacher_samples=teacher_samples,
        network=network,
        student=student,
        students=students,
        student_from=student_from,
        time_schedule=time_schedule,
        samples=samples,
        batch=batch,
        lr=lr,
        evaluation_samples=evaluation_samples,
        rung_samples=rung_samples,
        features=features,
        seed=seed,
        settings={**more, **(settings or {})},
    )
    return carry_out(run, paths, worker, out=out, progress=progress)


def carry_out(
    run: RunConfig,
    paths: Paths,
    worker: Worker,
    *,
    out: str | Path | None = None,
    progress: bool | IO[str] = True,
) -> Model:
    """Bring a run that is `planned` to its scored student; `out` and `progress` are those of `distill`."""
    method = run.method.kind
    check_run(run, paths)  # before images are decoded for the key
    inputs = inputs_key(run, paths)
    key = config_hash([config_hash(run), inputs]) if inputs else config_hash(run)
    folder = Path(out).expanduser() if out else paths.storage / "distill" / f"{method}-{key}"
    if out:
        require_local(folder, "out")
        require_writable(folder, "out")
    size = run.method.batch
    with shown(method, run.method.samples, progress) as (seen, say):
        result = run_distillation(
            run,
            paths,
            folder,
            worker=worker,
            report=lambda scores: seen(scores["samples"], f"distance {scores['distance']:.3f}"),
            on_step=lambda step, _, loss: seen(step * size, None),
            say=say,
        )
    return Model(training.load_model(result.student, "out"), worker, Path(result.student), result)


def evaluate(
    model: str | Path | Model,
    *,
    steps: int | None = None,
    sampler: str | None = None,
    sampler_settings: Mapping[str, float] | None = None,
    samples: int | None = None,
    features: str = "",
    labels: str | None = None,
    dataset: str | None = None,
    seed: int = 0,
    storage: str | Path | None = None,
    data_root: str | None = None,
    device: str | torch.device | None = None,
    threads: int = 0,
) -> dict[str, Any]:
    """Score a model or a model folder: its distance, with everything that must be named beside one.

    `samples` images from noise fixed by `seed` are compared with `dataset` (default: what the model was trained on);
    they are made in `steps` of `sampler` with `sampler_settings` (default: its own).
    What else is None or "" is the data set's own: 50,000 images with labels drawn at `random` for photographs, 4,000
    with `balanced` ones for the digits.

    >>> import tract_ray as tr
    >>> score = tr.evaluate(tr.distill("digits", **tiny), samples=100, storage=runs)
    >>> score["metric"], score["samples"], score["sampler"], score["nfe"]
    ('fid_digits', 100, 'ddim', 1)
    """
    paths = Paths.at(storage, data_root)
    if not isinstance(model, Model):
        model = load_model(model, device=device, threads=threads)
    inner, place = model.network.resampled(steps, sampler, sampler_settings), model.worker.device
    config = EvaluationConfig(features=features, samples=samples, labels=labels, seed=seed)
    name = absolute_dataset(dataset) if dataset else inner.dataset
    require(bool(name), "dataset", "this model does not say what it was trained on; name the data to compare with")
    data = load_dataset(name, data_root).to(place)
    evaluator = build_evaluator(config, inner, data, paths, model.worker, "checkpoint")
    images = config.on(data.name).samples or 0
    distance = evaluator.distance(inner.sample, images)
    return {**evaluator.describe(images), **inner.sampling(), "distance": distance}


def _count(field: str, count: Count | None) -> int | None:
    return parse_count(field, count) if count else None
