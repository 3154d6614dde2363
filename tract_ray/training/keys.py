"""Keys: whatever is kept for others to find is found by the content of all that determines it, and by nothing else.

What is spelt differently and is the same has one key: a student that names its teacher's network, options that repeat
a preset's own, samples that make the same number of steps, a model folder wherever it lies. What is spelt alike and is
not the same has two: weights that are read as another prediction, a folder whose images have changed.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tract_ray.config import InputError, config_hash, to_dict
from tract_ray.data import dataset_fingerprint
from tract_ray.evaluation.extractors.classifier import RECIPE
from tract_ray.networks import presets
from tract_ray.training.model import Model, load_model
from tract_ray.training.paths import Paths
from tract_ray.training.run_config import EvaluationConfig, NetworkConfig, RunConfig, TeacherConfig

UNREAD = "unread"
FORMAT = 3  # raised when what a run computes changes, so that what older versions kept is not found any more


def tensors_key(tensors: Mapping[str, Tensor]) -> str:
    """Of tensors: their names, types, shapes and bytes, whatever file or device holds them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def network_content(config: NetworkConfig) -> dict[str, Any]:
    """What a network is built from: its kind with all settings, whichever preset and options they come from."""
    preset = presets[config.name]
    settings = {n: p.default for n, p in inspect.signature(preset.build).parameters.items() if n in preset.options}
    return {"kind": preset.build.__name__, **to_dict({**settings, **preset.settings, **config.options})}


def model_content(model: Model) -> dict[str, Any]:
    """What a run can see of a model that it starts from: its weights, and how they are read."""
    return {
        "weights": tensors_key(model.denoiser.module.state_dict()),
        "network": network_content(model.network),
        "shape": model.shape,
        "classes": model.num_classes,
        "prediction": model.denoiser.prediction,
        "schedule": model.denoiser.schedule.name,
        "times": model.times,
    }


def folder_content(folder: Path, field: str) -> tuple[dict[str, Any], str]:
    """`model_content` of a model folder and the name of its data set; read once as long as its files stay."""
    files = [file for file in (folder / "config.json", folder / "model.safetensors") if file.is_file()]
    return _folder_content(folder, field, *((s.st_mtime_ns, s.st_size, s.st_ino) for s in map(Path.stat, files)))


@lru_cache(maxsize=16)
def _folder_content(folder: Path, field: str, *state: tuple[int, int, int]) -> tuple[dict[str, Any], str]:
    model = load_model(folder, field)
    return model_content(model), model.dataset


def data_key(name: str, root: str | None) -> str:
    """Of a data set's content; of its name where this machine cannot read it, which only plans have use for."""
    try:
        return dataset_fingerprint(name, root)
    except InputError:
        return f"{UNREAD} {name}"


def teacher_key(config: TeacherConfig, data: str) -> str:
    """Of a teacher that is trained on data of the key `data`."""
    training = to_dict(config.training) | {"samples": config.training.steps * config.training.batch}
    if not config.conditional:
        del training["label_dropout"]
    assert config.network is not None
    return config_hash(
        {
            "format": FORMAT,
            "dataset": [_kind_of(config.dataset), data],
            "network": network_content(config.network),
            "conditional": config.conditional,
            "training": training,
            "seed": config.seed,
        }
    )


def teacher_folder(config: TeacherConfig, paths: Paths) -> Path:
    """Where the teacher is, or will be."""
    if config.path is not None:
        return Path(config.path).expanduser().absolute()
    assert config.network is not None
    key = teacher_key(config, data_key(config.dataset, paths.data_root))
    return paths.cache / "teachers" / f"{_kind_of(config.dataset)}-{config.network.name}-{key}"


def _kind_of(dataset: str) -> str:
    """The name of a data set; `folder` for images on disk, which are the same wherever they lie."""
    return dataset.partition(":")[0]


class Start(NamedTuple):
    """What a run begins with: its key, and the architecture of its student (`network_content`)."""

    key: str
    student: dict[str, Any]


def start_of(config: RunConfig, teacher: Mapping[str, Any], data: str) -> Start:
    """From the content of a run's `teacher`, the key of its `data`, its student and its seed."""
    source: Mapping[str, Any] | None = teacher
    if config.student_from == "random":
        source = None
    elif config.student_from != "teacher":
        source, _ = folder_content(Path(config.student_from).expanduser().absolute(), "student_from")
    inherited = (source or teacher)["network"]
    student = network_content(config.first_student) if config.first_student else inherited
    whole = source is not None and student == inherited  # all weights are the source's, not only those that fit
    start = {"weights" if whole else "fitting": source["weights"]} if source else {}
    content = {"format": FORMAT, "teacher": teacher, "data": data, "student": student, "start": start}
    return Start(config_hash({**content, "seed": config.seed}), student)


def planned_start(config: RunConfig, paths: Paths | None) -> tuple[Start, str]:
    """`start_of` a run that is not built yet, and the name of its data set.

    A teacher that is still to be trained is known by its configuration; so is all data where no `paths` say where the
    files are, as it is enough to compare runs with each other.
    """
    teacher, name = config.teacher, config.teacher.dataset
    folder = teacher_folder(teacher, paths) if paths else Path(teacher.path).absolute() if teacher.path else None
    if folder and (folder / "config.json").is_file():
        content, known = folder_content(folder, "teacher")
        name = known if known and teacher.path else name  # its own data may have been moved since
    else:
        network = network_content(teacher.network) if teacher.network else {}
        content = {"weights": folder.name if folder else teacher_key(teacher, name), "network": network}
    return start_of(config, content, data_key(name, paths.data_root) if paths else name), name


def inputs_key(config: RunConfig, paths: Paths) -> str:
    """Of what a configuration only names, a place on disk: images, a teacher, a first student. "" where it names none,
    or where they cannot be read any more.
    """
    teacher, name, found = config.teacher.path, config.teacher.dataset, list[Any]()
    try:
        if teacher:
            content, known = folder_content(Path(teacher).expanduser().absolute(), "teacher")
            found, name = [content], known or name
        if config.student_from not in ("teacher", "random"):
            found.append(folder_content(Path(config.student_from).expanduser().absolute(), "student_from")[0])
        if _kind_of(name) != name:
            found.append(dataset_fingerprint(name, paths.data_root))
    except InputError:
        return ""
    return config_hash(found) if found else ""


def evaluation_content(config: EvaluationConfig, dataset: str, *, last: bool, whole: bool) -> dict[str, Any]:
    """What determines the scores of a stage, `last` of its run or not; `whole`: all images are scored at every mark."""
    content = to_dict(config.on(dataset) if dataset else config)
    if not (last or whole):
        del content["samples"]
    if whole:
        del content["rung_samples"]
    if whole or not last:
        del content["report"]  # what is kept of a best mark is scored by whoever takes it over
    return {"sets": 2, **content, "recipe": RECIPE if content["features"] == "classifier" else {}, "dataset": dataset}


def score_key(model: Model | None, data: str, evaluation: Mapping[str, Any]) -> str:
    """Of a reference row: a model in its steps (None: the data's own), and all that its distance is of.

    `evaluation` is the evaluator's description, which names the extractor by its content.
    """
    sampled = [model_content(model), model.sampling()] if model else []
    return config_hash([FORMAT, sampled, data, evaluation])


def run_key(config: RunConfig, start: str) -> str:
    """Of a run in progress: only with the same teacher, data and settings may it go on from its checkpoint."""
    return config_hash([to_dict(config), start])
