"""What a sweep is told on its command line or by its caller, and the runs that it makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from tract_ray.config import choose, parse_count, require
from tract_ray.data import dataset_info
from tract_ray.distillation import MethodConfig, methods, parse_time_schedule
from tract_ray.networks.sizing import third
from tract_ray.search.study import Search
from tract_ray.training import EvaluationConfig, Model, RunConfig, TeacherConfig, load_model
from tract_ray.training.default_method import default_method
from tract_ray.training.paths import absolute, absolute_dataset
from tract_ray.training.recipes import Recipe, find_recipe, method_recipe, teacher_recipe

DATASET = "digits"
FIXED = ("overall", "per-phase")
TRACT = ("tract", "tract_edm")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every sweep's runs have in common. None leaves a setting to the `recipe` (a name or a file), without one to
    that of the data set (default: digits).

    `kind` is the method, by default the one that suits the teacher; `settings` are further ones of it by name.
    """

    dataset: str | None = None
    recipe: str | None = None
    network: str | None = None
    kind: str | None = None
    time_schedule: str | None = None
    samples: str | int | None = None
    batch: int | None = None
    lr: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    teacher_samples: str | int | None = None
    evaluation_samples: int | None = None
    features: str = ""
    seed: int = 0
    fixed: str = "overall"
    trials: int = Search.trials

    def __post_init__(self) -> None:
        choose("fixed", self.fixed, FIXED)
        if self.kind:
            choose("method", self.kind, methods)
            require(self.kind != "denoising", "method", "denoising trains teachers; use `tract-ray teacher`")
        # Trials run in a folder of Ray's.
        object.__setattr__(self, "dataset", absolute_dataset(self.dataset) if self.dataset else None)
        object.__setattr__(self, "teacher", absolute(self.teacher) if self.teacher else None)
        if self.time_schedule:
            parse_time_schedule(self.time_schedule)
        if self._recipe:
            require(not self._recipe.trains_teachers, "recipe", f"{self.recipe} trains teachers")
            own = self._recipe.method.kind
            require(self.kind in (None, own), "method", f"{self.kind} is not that of the recipe {self.recipe}, {own}")

    @cached_property
    def _recipe(self) -> Recipe | None:
        return find_recipe(self.recipe) if self.recipe else None

    @cached_property
    def _model(self) -> Model | None:
        return load_model(self.teacher, "teacher") if self.teacher else None

    @cached_property
    def taught(self) -> TeacherConfig:
        """The teacher: the folder that was named, or one to train."""
        if self._model:  # a run uses its teacher's data
            if self._recipe:
                self._recipe.check_shape("the teacher", self._model.shape, self.network)
            return TeacherConfig(dataset=self._model.trained_on(self.dataset) or DATASET, path=self.teacher)
        samples = parse_count("teacher-samples", self.teacher_samples) if self.teacher_samples else None
        if self._recipe:
            return self._recipe.teacher_on(self.dataset, self.network, samples=samples)
        return teacher_recipe(self.dataset or DATASET, self.network, samples=samples)

    @cached_property
    def method_name(self) -> str:
        """The method that was named, by itself or in a recipe, or the one that suits the teacher."""
        return self.kind or (self._recipe.method.kind if self._recipe else "") or default_method(self.taught)

    def tract(self) -> str:
        """The kind of TRACT that was named or suits the teacher."""
        return self.method_name if self.method_name in TRACT else default_method(self.taught)

    def only(self, *kinds: str) -> str:
        """The chosen method, which must be one of those that a sweep is about."""
        kind = self.method_name
        require(kind in kinds, "method", f"this sweep is about {' and '.join(kinds)}, not {kind}")
        return kind

    def method(self, kind: str | None = None, **changes: Any) -> MethodConfig:
        """A method (the chosen one by default): the data set's recipe, these options, and `changes` of the sweep.

        A setting that the sweep itself decides cannot be given, too. Another method than the chosen one takes of the
        given settings those that it has; the schedule it takes as far as it has one.
        """
        name = kind or self.method_name
        known = {f.name for f in fields(methods[choose("method", name, methods)].config_type)}
        for key in self.settings:
            own = key in known or name != self.method_name
            if not own:
                choose("method setting", key, known)
            require(key not in changes, "set", f"{key} is what this sweep itself decides")
        given = {
            **(self._steps_of(known) if self.time_schedule else {}),
            "samples": parse_count("samples", self.samples) if self.samples else None,
            "batch": self.batch,
            "lr": self.lr,
            **{key: value for key, value in self.settings.items() if key in known},
        }
        if self._recipe and name == self._recipe.method.kind:
            return self._recipe.changed({**given, **changes})
        return method_recipe(name, self.taught.dataset, **{**given, **changes})

    def _steps_of(self, known: set[str]) -> dict[str, Any]:
        """What the schedule means for a method: phases, or where it begins and ends."""
        schedule = self.schedule()
        if "time_schedule" in known:
            return {"time_schedule": schedule}
        ends = {"start_steps": schedule[0], "end_steps": schedule[-1], "teacher_steps": schedule[0]}
        ends["sampling_steps"] = schedule[-1]
        return {key: value for key, value in ends.items() if key in known}

    def schedule(self) -> tuple[int, ...]:
        """The time schedule: the given one, or that of the teacher's kind of TRACT."""
        if self.time_schedule:
            return parse_time_schedule(self.time_schedule)
        config: Any = methods[self.tract()].config_type()
        if self._recipe and self._recipe.method.kind in TRACT:
            config = self._recipe.method
        return tuple(config.time_schedule)

    def length(self, phases: int) -> int:
        """Images of a run of `phases` phases: the same for all, or as many for each as in a run of two."""
        whole = self.method().samples
        return whole if self.fixed == "overall" else whole * phases // 2

    def architecture(self) -> tuple[str, dict[str, Any]]:
        """The teacher's preset, and the settings in which the teacher differs from it."""
        network = self._model.network if self._model else self.taught.network
        assert network is not None  # a teacher that is trained has one
        return network.name, dict(network.options)

    def third(self) -> dict[str, Any]:
        """The network of about a third of the teacher's parameters, as a run's `student`."""
        name, own = self.architecture()
        model = self._model
        shape, classes = (model.shape, model.num_classes) if model else (dataset_info(self.taught.dataset).shape, 0)
        return {"name": name, "options": third(name, own, shape, classes)}

    def run(self, method: MethodConfig | None = None, *, per_phase: int = 2) -> RunConfig:
        """The run that every trial starts from (the chosen method by default), scored `per_phase` times in a phase."""
        asked = {"samples": self.evaluation_samples, "features": self.features or None}
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        method, data, recipe = method or self.method(), self.taught.dataset, self._recipe
        evaluation = recipe.evaluation_on(data, self.network) if recipe else EvaluationConfig()
        students = recipe.students_on(data, self.network) if recipe and method.kind == recipe.method.kind else {}
        return RunConfig(
            teacher=self.taught,
            method=method,
            evaluation=replace(evaluation, per_phase=per_phase, **given),
            seed=self.seed,
            **students,
        )
