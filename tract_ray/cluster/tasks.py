"""What a sweep has computed once, on one machine of the cluster: the teacher, and the rows it is compared with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
import torch
from rich.console import Console

from tract_ray.cluster.resources import Request
from tract_ray.disk import on_disk_full
from tract_ray.files import DamagedError
from tract_ray.terminal import Progress, duration
from tract_ray.training import (
    Paths,
    RunConfig,
    Score,
    TeacherConfig,
    Worker,
    default_device,
    find_teacher,
    reference_steps,
    score_teacher,
    teacher_folder,
    train_teacher,
)
from tract_ray.training.checkpoint_writer import save_now
from tract_ray.training.record import read_lines


def train_teacher_on_cluster(run: RunConfig, paths: Paths, request: Request, console: Console) -> None:
    """Train the teacher on one machine of the cluster, if the cache lacks it; its record tells how far it is."""
    teacher, training = run.teacher, run.teacher.training
    folder = teacher_folder(teacher, paths)
    if find_teacher(teacher, paths) is not None:
        console.print(f"teacher: found in {folder}")
        return
    gpus = min(request.gpus, 1)
    task = ray.remote(num_cpus=request.cpus, num_gpus=gpus)(_train_teacher)
    pending = task.remote(teacher, paths, request.cpus, gpus)
    work = folder.with_name(folder.name + ".training")
    with Progress("teacher", training.samples, console.file) as progress, _saved(work):
        started = time.monotonic()
        while not ray.wait([pending], timeout=1.0)[0]:
            with suppress(DamagedError, OSError):  # the task itself finds it, too
                for last in read_lines(work)[-1:]:
                    progress.update("teacher", last["samples"], f"loss {last['metrics']['loss']:.4f}")
        ray.get(pending)
    console.print(f"teacher: trained in {duration(time.monotonic() - started)}, kept in {folder}")


@contextmanager
def _saved(folder: Path) -> Iterator[None]:
    """The training in `folder` writes a checkpoint where it is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        save_now([folder], 1.5)
        raise


def _train_teacher(teacher: TeacherConfig, paths: Paths, cpus: int, gpus: int) -> None:
    torch.set_num_threads(cpus)
    on_disk_full(paths.on_disk_full)
    train_teacher(teacher, paths, Worker(device=default_device() if gpus else torch.device("cpu")))


def start_references(run: RunConfig, paths: Paths, request: Request, steps: tuple[int, ...]) -> Any:
    """Reference rows (the teacher at several numbers of steps, and the noise floor), computed beside the trials.

    Returns Ray's reference to the list of scores. One task: it keeps one slot from the trials, and imports everything
    once.
    """
    gpus = min(request.gpus, 1)
    task = ray.remote(num_cpus=request.cpus, num_gpus=gpus)(_score_references)
    return task.remote(run, paths, steps, request.cpus, gpus)


def collect(pending: Any) -> list[Score]:
    """The scores that `start_references` promised."""
    scores: list[Score] = ray.get(pending)
    return scores


def _score_references(run: RunConfig, paths: Paths, steps: tuple[int, ...], cpus: int, gpus: int) -> list[Score]:
    torch.set_num_threads(cpus)
    worker = Worker(device=default_device() if gpus else torch.device("cpu"))
    asked = steps or reference_steps(train_teacher(run.teacher, paths, worker))
    return [score_teacher(run.teacher, run.evaluation, paths, count, worker) for count in (*asked, 0)]
