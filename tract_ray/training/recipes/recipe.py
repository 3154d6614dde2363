"""What a recipe is, and the runs that it makes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tract_ray.config import InputError, choose, from_dict, require, to_dict
from tract_ray.data import dataset_info
from tract_ray.distillation import MethodConfig
from tract_ray.files import read_json
from tract_ray.networks.sizing import third
from tract_ray.training.recipes.by_data import teacher_recipe
from tract_ray.training.run_config import EvaluationConfig, NetworkConfig, RunConfig, TeacherConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run, and where each comes from.

    `method` trains the student; for a teacher's recipe it is the teacher's own training. `student` and `students` are
    those of a `RunConfig`. `published` is the distance in the paper and `measured_with` how it was measured;
    `sources` say for each setting where its number is written, `[U]` where we only know it second-hand; `notes` say
    what this package does otherwise.

    With a `network` named, a recipe is scaled to it: where a student is smaller than its teacher, it gets a third of
    the network's parameters; on other data than the recipe's, those choose the extractor and the number of images.
    """

    name: str
    what: str
    teacher: TeacherConfig
    method: MethodConfig
    student: NetworkConfig | None = None
    students: tuple[NetworkConfig | None, ...] = ()
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    published: str = ""
    measured_with: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.sources:
            choose("sources", name, [*(f.name for f in fields(self.method)), "network", "students", "evaluation"])

    @property
    def trains_teachers(self) -> bool:
        """Whether it is the recipe of a teacher."""
        return self.method.kind == "denoising"

    def changed(self, changes: Mapping[str, Any]) -> MethodConfig:
        """The method with some of its settings changed; None ones are left out."""
        given = {name: value for name, value in changes.items() if value is not None}
        for name in given:
            choose("method setting", name, [f.name for f in fields(self.method)])
        both = "samples" in given and given.get("updates_per_phase")
        require(not both, "samples", "follow from updates_per_phase; give one of them")
        return replace(self.method, **given)

    def teacher_on(self, dataset: str | None, network: str | None, **changes: Any) -> TeacherConfig:
        """The teacher that it would train: its own, or one on other data, which must be of the same shape.

        Unless a `network` is named: then the recipe is scaled to it. `changes` are settings of the teacher's training,
        None ones are left out.
        """
        name, training = dataset or self.teacher.dataset, self.teacher.training
        self.check_shape(name, dataset_info(name).shape, network)
        if network is None:
            given = {setting: value for setting, value in changes.items() if value is not None}
            return replace(self.teacher, dataset=name, training=replace(training, **given))
        view = {setting: getattr(training, setting) for setting in ("prediction", "schedule", "weighting")}
        conditional = self.teacher.conditional and dataset_info(name).num_classes > 1
        return teacher_recipe(name, network, conditional=conditional, **{**view, **changes})

    def check_shape(self, what: str, shape: tuple[int, int, int], network: str | None) -> None:
        """Refuse images of another shape than the recipe's, unless a `network` for them is named."""
        own = dataset_info(self.teacher.dataset).shape
        sizes = ["x".join(map(str, s)) for s in (own, shape)]
        require(
            shape == own or network is not None,
            "recipe",
            f"{self.name} is for images {sizes[0]}, but {what} has {sizes[1]}; name a --network to scale it to them",
        )

    def run(
        self, teacher: TeacherConfig, changes: Mapping[str, Any], network: str | None = None, **more: Any
    ) -> RunConfig:
        """The run of this recipe with `teacher`; `more` are fields of a `RunConfig`, None ones are left out."""
        given = {name: value for name, value in more.items() if value is not None and value != ()}
        require(not self.trains_teachers, "recipe", f"{self.name} trains teachers; use `tract-ray teacher --recipe`")
        settings: dict[str, Any] = {"evaluation": self.evaluation_on(teacher.dataset, network), **given}
        if not {"student", "students"} & set(given):
            settings |= self.students_on(teacher.dataset, network)
        return RunConfig(teacher=teacher, method=self.changed(changes), **settings)

    def students_on(self, dataset: str, network: str | None) -> dict[str, Any]:
        """A run's `student` and `students`."""
        if network is None or not (self.student or self.students):
            return {"student": self.student, "students": self.students}
        info = dataset_info(dataset)
        classes = info.num_classes if self.teacher.conditional else 0
        small = NetworkConfig(name=network, options=third(network, {}, info.shape, classes))
        return {"student": self.student and small, "students": tuple(named and small for named in self.students)}

    def evaluation_on(self, dataset: str, network: str | None) -> EvaluationConfig:
        """How its students are scored on `dataset`: as published, unless it is scaled to other data."""
        if not self.is_scaled(dataset, network):
            return self.evaluation
        rung = EvaluationConfig().rung_samples
        return replace(self.evaluation, features="", samples=None, labels=None, rung_samples=rung)

    def is_scaled(self, dataset: str, network: str | None) -> bool:
        """Whether it is used on other data by a network that was named for them."""
        return network is not None and dataset != self.teacher.dataset

    def scaling(self, dataset: str, network: str | None) -> str:
        """What a person is told of a recipe that is scaled, "" where it is not."""
        if not self.is_scaled(dataset, network):
            return ""
        scores = self.evaluation_on(dataset, network).on(dataset)
        return (
            f"{self.name} is scaled to {network} on {dataset}: {scores.features} on {scores.samples:,} images scores "
            f"it by default, which compares with nothing published"
        )

    def to_json(self) -> str:
        """The text of its file."""
        return json.dumps(to_dict(self), indent=1) + "\n"


recipes: dict[str, Recipe] = {}
"""By name."""


def find_recipe(name: str | Path) -> Recipe:
    """The recipe called `name`, or the one that a JSON or TOML file says (`tract-ray recipes NAME > FILE` writes JSON).

    TOML has no null: what is left out has its default; `clip_norm = "none"` and a student "-" stand for it.
    """
    path = Path(name).expanduser()
    if path.suffix in (".json", ".toml") or path.is_file():
        require(path.is_file(), "recipe", f"there is no file {path}")
        content = _read_toml(path) if path.suffix == ".toml" else read_json(path, "recipe")
        return from_dict(Recipe, content, field="recipe")
    return recipes[choose("recipe", str(name), recipes)]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text())
    except ValueError as error:  # also of the encoding
        raise InputError(f"recipe: {path} cannot be read ({error})") from None
    return {key: _with_null(key, value) for key, value in content.items()}


def _with_null(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_null(name, own) for name, own in value.items()}
    if key == "students" and isinstance(value, list):
        return [None if own == "-" else own for own in value]
    return None if (key, value) == ("clip_norm", "none") else value
