"""One distillation, from its configuration to a scored student: what a trial, a worker and the CLI all call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tract_ray.config import config_hash, to_dict
from tract_ray.data import Dataset, load_dataset
from tract_ray.disk import on_disk_full
from tract_ray.distillation import Method, methods
from tract_ray.evaluation import Evaluator, latency
from tract_ray.files import write_json
from tract_ray.networks import count_parameters
from tract_ray.training.checkpoint import CHECKPOINT, Position
from tract_ray.training.keys import Start, model_content, start_of, teacher_folder
from tract_ray.training.model import Model
from tract_ray.training.notes import note
from tract_ray.training.paths import Paths
from tract_ray.training.precision import check_precision
from tract_ray.training.result import RunResult, find_result
from tract_ray.training.run_checks import check_run
from tract_ray.training.run_config import RunConfig
from tract_ray.training.scoring import Scorer, build_evaluator
from tract_ray.training.stage_runner import Report, StagedRun
from tract_ray.training.stage_store import StageStore
from tract_ray.training.stages import stage_ends
from tract_ray.training.student import architectures, initial_student, student_model, students_by_phase
from tract_ray.training.teacher import train_teacher
from tract_ray.training.worker import Worker


def run_distillation(
    config: RunConfig,
    paths: Paths,
    folder: Path,
    *,
    worker: Worker | None = None,
    report: Report | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
    reuse: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Distil, evaluate and save; continues from `folder` what was interrupted, and returns at once what was finished.

    Phases that any run has trained before are taken over from the cache, bit for bit, unless `reuse` is off.

    Every worker of a run calls this with the same arguments. `report` is told the scores at each mark: `samples`
    seen, `distance` (the best of the bank), its `mu_i`, whether that is the `finished` run's, and what it has cost so
    far (`trained` images, `device_seconds`). `on_step` is told (step, last step, loss), `say` a line for each part.
    """
    started = time.perf_counter()
    worker = worker or Worker()
    on_disk_full(paths.on_disk_full, lambda text: note(folder, text))
    result = find_result(folder, config, paths)
    if result is None:
        check_precision(config.method.precision, worker.device)
        built = _build(config, paths, folder, worker, say)
        last = stage_ends(config)[-1]
        ended = StagedRun(
            config,
            built.start,
            built.method,
            built.dataset,
            built.scorer,
            StageStore(paths) if reuse else None,
            folder,
            worker,
            report,
            (lambda step, loss: on_step(step, last, loss)) if on_step else None,
            paths.checkpoint_seconds,
            paths.micro_batch,
        ).run()
        worker.gather(None)  # what the leading worker wrote is there for all
        result = _finish(config, built, folder, worker, ended, started)
    if report:
        report(result.report())
    return result


@dataclass(frozen=True)
class _Built:
    """What a run is made of; `start` is what it begins with."""

    start: Start
    dataset: Dataset
    method: Method
    evaluator: Evaluator
    scorer: Scorer


def _build(config: RunConfig, paths: Paths, folder: Path, worker: Worker, say: Callable[[str], None]) -> _Built:
    teacher = _teacher(config, paths, worker, say).to(worker.device)
    dataset = load_dataset(teacher.dataset or config.teacher.dataset, paths.data_root).to(worker.device)
    say(dataset.described())
    evaluator = build_evaluator(config.evaluation, teacher, dataset, paths, worker)
    start = start_of(config, model_content(teacher), dataset.fingerprint)
    network, student = initial_student(config, teacher)
    method = methods[config.method.kind](config.method, teacher.as_teacher(), student.to(worker.device))
    networks = architectures(config, network)
    method.students = students_by_phase(config, teacher, networks)
    make_model = student_model(config, paths, teacher, method, networks)
    if worker.leads:
        about = {"key": config_hash(config), "config": to_dict(config)}
        write_json(folder / "config.json", about, private=True)
        method.store_averages(folder / "averages")
    scorer = Scorer(method, evaluator, config.evaluation, folder, worker, make_model, stage_ends(config)[-1])
    return _Built(start, dataset, method, evaluator, scorer)


def _teacher(config: RunConfig, paths: Paths, worker: Worker, say: Callable[[str], None]) -> Model:
    """The run's teacher, trained if need be, after everything that can be checked without it."""
    teacher = check_run(config, paths, worker.world)
    if not worker.agree(teacher is not None) or teacher is None:
        return train_teacher(config.teacher, paths, worker, say=say)
    say(f"teacher: found in {teacher_folder(config.teacher, paths)}")
    return teacher


def _finish(
    config: RunConfig, built: _Built, folder: Path, worker: Worker, ended: Position, started: float
) -> RunResult:
    """Save the student and the result of a run that has `ended`."""
    student, score = built.scorer.chosen()
    student.to(worker.device)
    result = RunResult(
        metric=built.evaluator.metric,
        distance=score.distance,
        mu_i=score.mu_i,
        distances=score.distances,
        steps=student.steps,
        samples=ended.step * config.method.batch,
        parameters=count_parameters(student.denoiser.module),
        seconds_per_image=latency(student.sample, student.shape, worker.device, conditional=student.num_classes > 0),
        trained=ended.trained,
        seconds=time.perf_counter() - started,
        device_seconds=ended.seconds,
        student=str(folder / "student"),
        key=config_hash(config),
        evaluation=built.evaluator.describe(score.samples),
        select=config.evaluation.select,
        reported=score.reported,
        start=built.start.key,
        data=built.dataset.fingerprint,
    )
    if worker.leads:
        student.save(folder / "student")
        result.save(folder)
        (folder / CHECKPOINT).unlink(missing_ok=True)  # four times the weights, and nothing needs it any more
    worker.gather(None)  # no worker reports before the result is on disk
    return result
