"""Teachers: trained once, kept under the hash of what determines them, and scored once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tract_ray.config import config_hash, to_dict
from tract_ray.data import dataset_info, load_dataset
from tract_ray.diffusion import Denoiser
from tract_ray.distillation import Denoising
from tract_ray.evaluation import Evaluator
from tract_ray.files import read_json, write_text
from tract_ray.training.loop import train
from tract_ray.training.model import Model, load_model
from tract_ray.training.paths import Paths
from tract_ray.training.run_config import EvaluationConfig, NetworkConfig, TeacherConfig, build_for
from tract_ray.training.worker import Worker

TEACHER_STEPS = 1024


def teacher_folder(config: TeacherConfig, paths: Paths) -> Path:
    """Where the teacher is, or will be."""
    if config.path is not None:
        return Path(config.path).expanduser().absolute()
    name = config.dataset.replace("/", "_").replace(":", "_")
    assert config.network is not None
    return paths.cache / "teachers" / f"{name}-{config.network.name}-{config_hash(config)}"


def find_teacher(config: TeacherConfig, paths: Paths) -> Model | None:
    """The trained teacher, or None where it must still be trained; an `InputError` if its files are damaged."""
    folder = teacher_folder(config, paths)
    if config.path is None and not (folder / "config.json").is_file():
        return None
    return load_model(folder, "teacher")


def train_teacher(
    config: TeacherConfig,
    paths: Paths,
    worker: Worker | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> Model:
    """The teacher of `config`: found in the cache, or trained (continuing what was interrupted) and put there."""
    found = find_teacher(config, paths)
    if found is not None:
        return found
    assert config.network is not None
    worker = worker or Worker()
    dataset = load_dataset(config.dataset, paths.data_root).to(worker.device)
    classes = dataset.num_classes if config.conditional else 0
    network = build_for(config.network, dataset.shape, config.training.prediction, classes, seed=config.seed)
    method = Denoising(config.training, None, network.to(worker.device))
    folder = teacher_folder(config, paths)
    work = folder.with_name(folder.name + ".training")
    train(method, dataset, seed=config.seed, key=config_hash(config), folder=work, worker=worker, on_step=on_step)
    average = next(iter(method.candidates().values()))
    model = Model(
        denoiser=Denoiser(average, method.student.schedule, config.training.prediction),
        network=config.network,
        shape=dataset.shape,
        steps=TEACHER_STEPS,
        num_classes=classes,
        dataset=config.dataset,
        about={"config": to_dict(config), "samples": method.phases[-1].end * config.training.batch},
    )
    if worker.leads:
        model.save(folder)
    return model


@dataclasses.dataclass(frozen=True)
class Score:
    """One reference row: the distance of `samples` images made with `steps` network calls each."""

    steps: int
    samples: int
    distance: float


def teacher_scores(
    config: TeacherConfig,
    evaluation: EvaluationConfig,
    paths: Paths,
    steps: Sequence[int],
    worker: Worker | None = None,
    *,
    budget: int = 1 << 20,
    on_row: Callable[[Score], None] | None = None,
) -> dict[str, Any]:
    """The teacher's distance at each number of `steps`, and the noise floor; kept beside the cached teacher.

    A row of many steps scores fewer images (at least 500) so that it costs at most about `budget` network calls; the
    row says how many.
    """
    worker = worker or Worker()
    model = train_teacher(config, paths, worker).to(worker.device)
    dataset_name = model.dataset or config.dataset
    dataset = load_dataset(dataset_name, paths.data_root).to(worker.device)
    features = evaluation.extractor(dataset_name)
    evaluator = Evaluator(
        dataset, features, paths.cache, seed=evaluation.seed, device=worker.device, conditional=model.num_classes > 0
    )
    known_file = paths.cache / "scores" / f"{teacher_folder(config, paths).name}.json"
    known: dict[str, float] = read_json(known_file, "scores") if known_file.is_file() else {}
    prefix = "/".join(str(v) for v in evaluator.describe(0).values())

    def remembered(name: str, compute: Callable[[], float]) -> float:
        key = f"{prefix}/{name}"
        if key not in known:
            known[key] = compute()
            write_text(known_file, json.dumps(known, indent=1))
        return known[key]

    rows = []
    for count in steps:
        samples = min(evaluation.samples, max(500, budget // count))
        distance = remembered(
            f"steps={count}/n={samples}",
            lambda count=count, samples=samples: evaluator.distance(  # type: ignore[misc]
                lambda noise, labels: model.sample(noise, labels, steps=count), samples
            ),
        )
        rows.append(Score(count, samples, distance))
        if on_row:
            on_row(rows[-1])
    return {
        **evaluator.describe(evaluation.samples),
        "noise_floor": remembered("floor", evaluator.noise_floor),
        "teacher": [dataclasses.asdict(row) for row in rows],
    }


def default_network(dataset: str) -> NetworkConfig:
    """The network that a data set uses unless told otherwise."""
    return NetworkConfig(name=dataset_info(dataset).network)
