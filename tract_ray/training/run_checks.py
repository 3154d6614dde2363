"""What can be known to be wrong with a run before anything is trained for it."""

from __future__ import annotations

import torch

from tract_ray.config import InputError, require
from tract_ray.data import check_dataset, dataset_info
from tract_ray.distillation import methods
from tract_ray.evaluation import check_extractor
from tract_ray.files import require_writable
from tract_ray.training.gradients import check_micro_batch
from tract_ray.training.model import Model, load_model
from tract_ray.training.paths import Paths
from tract_ray.training.run_config import RunConfig, build_for
from tract_ray.training.teacher import find_teacher
from tract_ray.training.worker import check_batch


def check_run(config: RunConfig, paths: Paths, workers: int = 1) -> Model | None:
    """Raise `InputError` for what the run needs and cannot have.

    That is a batch that divides among the `workers`, a teacher that knows the schedule's first nodes, students that
    can be built, a model folder, a data set, an extractor or a place to write to.
    Returns the teacher, or None where it is still to be trained.
    """
    check_batch(config.method.batch, workers)
    kind = config.method.kind
    check_micro_batch(paths.micro_batch, config.method.batch, workers, methods[kind].divisible, kind)
    teacher = find_teacher(config.teacher, paths)
    if teacher is None:
        training = config.teacher.training
        check_batch(training.batch, workers)
        check_micro_batch(paths.micro_batch, training.batch, 1, True, training.kind)
    _check_students(config, teacher)
    if teacher is not None:
        check_steps(config, teacher)
    if config.student_from not in ("teacher", "random"):
        load_model(config.student_from, "student_from")
    dataset = (teacher.dataset if teacher else "") or config.teacher.dataset
    check_dataset(dataset)
    if teacher and not teacher.dataset:
        _check_named(teacher, dataset)
    check_features(config.evaluation.extractor(dataset), dataset)
    require_writable(paths.storage, "storage")
    return teacher


def check_steps(config: RunConfig, teacher: Model) -> None:
    """Refuse a student as the teacher of a schedule that begins with other steps than its own."""
    methods[config.method.kind].check_teacher(config.method, None if teacher.times is None else teacher.steps)


def _check_students(config: RunConfig, teacher: Model | None) -> None:
    """Build every phase's architecture where it costs nothing: the last one's error would come after hours."""
    if teacher:
        shape, prediction, classes = teacher.shape, teacher.denoiser.prediction, teacher.num_classes
    else:
        info = dataset_info(config.teacher.dataset)
        classes = info.num_classes if config.teacher.conditional else 0
        shape, prediction = info.shape, config.teacher.training.prediction
    for network in {repr(n): n for n in (config.student, *config.students) if n}.values():
        with torch.device("meta"):
            build_for(network, shape, prediction, classes, seed=None)


def _check_named(teacher: Model, dataset: str) -> None:
    """Refuse the default data set for a teacher of other images that does not say what it was trained on."""
    shape = dataset_info(dataset).shape
    own, other = ("x".join(map(str, s)) for s in (teacher.shape, shape))
    require(
        shape == teacher.shape,
        "dataset",
        f"the teacher does not say what it was trained on, and makes images of {own}, not {dataset}'s {other}; name "
        f"its data with --dataset (folder:PATH@{teacher.shape[-1]} for images on disk)",
    )


def check_features(name: str, dataset: str) -> None:
    """Refuse features that `dataset` cannot have, with what can be done about it."""
    if dataset_info(dataset).num_classes > 1:
        check_extractor(name)
        return
    require(
        name != "classifier",
        "features",
        f"{dataset} has no classes, which the classifier would learn; sort its images into a folder for each class, or "
        "choose other features (random ones need none)",
    )
    try:
        check_extractor(name)
    except InputError as error:
        advice = (
            "or use --features random, which needs neither weights nor classes, or sort the images into a folder for "
            "each class and use --features classifier"
        )
        raise InputError(str(error).replace("or use --features classifier", advice)) from None
