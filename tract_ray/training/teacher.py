"""Teachers: trained once, kept under the hash of what determines them, and scored once."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tract_ray.config import InputError, to_dict
from tract_ray.data import check_dataset, load_dataset
from tract_ray.diffusion import Denoiser, teacher_sampling
from tract_ray.distillation import Denoising
from tract_ray.files import DamagedError, made_again, read_json, require_writable, write_json
from tract_ray.training.claims import claim
from tract_ray.training.damage import sound_checkpoint
from tract_ray.training.keys import score_key, teacher_folder, teacher_key
from tract_ray.training.loop import train
from tract_ray.training.model import Model, load_model
from tract_ray.training.paths import Paths
from tract_ray.training.precision import check_precision
from tract_ray.training.run_config import EvaluationConfig, TeacherConfig, build_for
from tract_ray.training.scoring import build_evaluator
from tract_ray.training.worker import Worker


def find_teacher(config: TeacherConfig, paths: Paths) -> Model | None:
    """The trained teacher, or None where it must still be trained; an `InputError` if its files are damaged."""
    folder = teacher_folder(config, paths)
    if config.path is None and not _is_trained(folder):
        return None
    return _read(config, folder)


def _read(config: TeacherConfig, folder: Path) -> Model:
    try:
        model = load_model(folder, "teacher")
    except InputError as error:
        remedy = "" if config.path else "; remove its folder, and it is trained again"
        raise InputError(f"{error}{remedy}") from None
    if config.path is None:
        model.dataset = config.dataset  # the same images, wherever they lay when it was trained
    return model


def train_teacher(
    config: TeacherConfig,
    paths: Paths,
    worker: Worker | None = None,
    on_step: Callable[[int, float], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Model:
    """The teacher of `config`: found in the cache, or trained (continuing what was interrupted) and put there.

    Of the processes that need it at the same time one trains it; the others wait, and are told no step. `on_step` is
    told (step, loss), and `say` a line for each part of it.
    """
    worker = worker or Worker()
    found = find_teacher(config, paths)
    all_found = worker.agree(found is not None)
    if found is not None and all_found:
        say(f"teacher: found in {teacher_folder(config, paths)}")
        return found
    require_writable(paths.cache, "storage")
    check_dataset(config.dataset)
    check_precision(config.training.precision, worker.device)
    folder = teacher_folder(config, paths)
    with claim(folder.with_name(f".{folder.name}.lock"), lambda: _is_trained(folder), worker) as ready:
        model = None if ready else _train(config, paths, worker, on_step, say)
    say(f"teacher: {'found' if ready else 'trained, kept'} in {folder}")
    return model or _read(config, folder)


def _is_trained(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _train(
    config: TeacherConfig,
    paths: Paths,
    worker: Worker,
    on_step: Callable[[int, float], None] | None,
    say: Callable[[str], None],
) -> Model:
    assert config.network is not None
    dataset = load_dataset(config.dataset, paths.data_root).to(worker.device)
    say(dataset.described())
    say(f"teacher: {config.network.name} learns from {config.training.samples:,} images")
    classes = dataset.num_classes if config.conditional else 0
    network = build_for(config.network, dataset.shape, config.training.prediction, classes, seed=config.seed)
    method = Denoising(config.training, None, network.to(worker.device))
    folder = teacher_folder(config, paths)
    work = folder.with_name(folder.name + ".training")
    key = teacher_key(config, dataset.fingerprint)
    sound_checkpoint(work, key, worker)
    train(
        method,
        dataset,
        seed=config.seed,
        key=key,
        folder=work,
        worker=worker,
        on_step=on_step,
        checkpoint_seconds=paths.checkpoint_seconds,
        log_points=25,
        micro_batch=paths.micro_batch,
    )
    average = next(iter(method.candidates().values()))
    sampler, steps = teacher_sampling(config.training.schedule, dataset.shape[-1])
    model = Model(
        denoiser=Denoiser(average, method.student.schedule, config.training.prediction),
        network=config.network,
        shape=dataset.shape,
        steps=steps,
        num_classes=classes,
        sampler=sampler,
        dataset=config.dataset,
        about={"config": to_dict(config), "samples": method.phases[-1].end * config.training.batch},
    )
    if worker.leads:
        model.save(folder)
        shutil.rmtree(work, ignore_errors=True)
    return model


@dataclasses.dataclass(frozen=True)
class Score:
    """A reference row: the distance of `samples` images made in `steps` of `sampler`, `nfe` network calls each."""

    metric: str
    steps: int
    samples: int
    distance: float
    sampler: str = ""
    nfe: int = 0

    @property
    def label(self) -> str:
        """`teacher, 18 heun steps (35 calls)`; a step of DDIM is one network call."""
        if not self.steps:
            return "real, half vs half"
        kind = "" if self.sampler in ("", "ddim") else f"{self.sampler} "
        calls = "" if self.nfe in (0, self.steps) else f" ({self.nfe} calls)"
        return f"teacher, {self.steps} {kind}step{'s' if self.steps > 1 else ''}{calls}"


def reference_steps(model: Model) -> tuple[int, ...]:
    """At how many steps a teacher is scored beside its students: its own and few; a student only at its own."""
    if model.times is not None:
        return (model.steps,)
    few = (32, 1) if model.nfe(2) == 2 else (1,)  # a second-order sampler needs no middle: its own steps are few
    return tuple(sorted({model.steps, *few}, reverse=True))


def score_teacher(
    config: TeacherConfig,
    evaluation: EvaluationConfig,
    paths: Paths,
    steps: int | None = None,
    worker: Worker | None = None,
    *,
    budget: int = 1 << 20,
) -> Score:
    """The distance of the teacher's samples in `steps` of the sampler that it is made for, by default its own number.

    0 steps is the noise floor of the real images. A row of many steps scores fewer images (at least 500), so that it
    costs about `budget` network calls at most. Rows are kept in the cache under all that determines them (`score_key`).
    """
    worker = worker or Worker()
    model = train_teacher(config, paths, worker).to(worker.device)
    dataset = load_dataset(model.dataset or config.dataset, paths.data_root).to(worker.device)
    evaluator = build_evaluator(evaluation, model, dataset, paths, worker)
    if steps != 0:
        model = model.resampled(steps)
        whole, sampling = evaluation.on(dataset.name).samples or 0, model.sampling()
        samples = min(whole, max(500, budget // model.nfe()))
    else:
        samples, sampling = len(dataset), {}
    about = evaluator.describe(samples)
    file = paths.cache / "scores" / f"{score_key(model if sampling else None, dataset.fingerprint, about)}.json"
    if file.exists():
        try:
            return Score(**read_json(file, "scores")["score"])
        except DamagedError as error:
            print(made_again(file, error, "computed again"), file=sys.stderr)
    if sampling:
        distance = evaluator.distance(model.sample, samples)
        score = Score(evaluator.metric, model.steps, samples, distance, model.sampler, model.nfe())
    else:
        score = Score(evaluator.metric, 0, samples, evaluator.noise_floor())
    write_json(file, {"about": {**about, **sampling}, "score": dataclasses.asdict(score)})
    return score
