"""What can be known to be wrong with a run before anything is trained for it."""

from __future__ import annotations

from tract_ray.data import check_dataset
from tract_ray.evaluation import check_extractor
from tract_ray.files import require_writable
from tract_ray.training.model import Model, load_model
from tract_ray.training.paths import Paths
from tract_ray.training.run_config import RunConfig
from tract_ray.training.teacher import find_teacher
from tract_ray.training.worker import check_batch


def check_run(config: RunConfig, paths: Paths, workers: int = 1) -> Model | None:
    """Raise `InputError` for what the run needs and cannot have.

    That is a batch that divides among the `workers`, a model folder, a data set, an extractor or a place to write to.
    Returns the teacher, or None where it is still to be trained.
    """
    check_batch(config.method.batch, workers)
    teacher = find_teacher(config.teacher, paths)
    if teacher is None:
        check_batch(config.teacher.training.batch, workers)
    if config.student_from not in ("teacher", "random"):
        load_model(config.student_from, "student_from")
    dataset = (teacher.dataset if teacher else "") or config.teacher.dataset
    check_dataset(dataset)
    check_extractor(config.evaluation.extractor(dataset))
    require_writable(paths.storage, "storage")
    return teacher
