"""What a sweep script is told on its command line, and the runs that it makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tract_ray.config import choose, parse_count
from tract_ray.distillation import MethodConfig, parse_time_schedule
from tract_ray.networks import presets
from tract_ray.search.study import Search
from tract_ray.training import EvaluationConfig, RunConfig, TeacherConfig, load_model
from tract_ray.training.paths import absolute, absolute_dataset
from tract_ray.training.recipes import method_recipe, teacher_recipe

FIXED = ("overall", "per-phase")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every sweep's runs have in common. None leaves a setting to the data set's recipe."""

    dataset: str = "digits"
    network: str | None = None
    time_schedule: str = "1024,32,1"
    samples: str | None = None
    batch: int | None = None
    lr: float | None = None
    teacher: str | None = None
    teacher_samples: str | None = None
    evaluation_samples: int = 4000
    features: str = ""
    seed: int = 0
    fixed: str = "overall"
    trials: int = Search.trials

    def __post_init__(self) -> None:
        choose("fixed", self.fixed, FIXED)
        # Trials run in a folder of Ray's.
        object.__setattr__(self, "dataset", absolute_dataset(self.dataset))
        object.__setattr__(self, "teacher", absolute(self.teacher) if self.teacher else None)
        self.schedule()

    def length(self, phases: int) -> int:
        """Images of a run of `phases` phases: the same for all, or as many for each as in a run of two."""
        whole = self.method("tract").samples
        return whole if self.fixed == "overall" else whole * phases // 2

    def taught(self) -> TeacherConfig:
        """The teacher: the folder that was named, or one to train."""
        if self.teacher:
            return TeacherConfig(dataset=self.dataset, path=self.teacher)
        samples = parse_count("teacher-samples", self.teacher_samples) if self.teacher_samples else None
        return teacher_recipe(self.dataset, self.network, samples=samples)

    def method(self, kind: str = "tract", **changes: Any) -> MethodConfig:
        """A method with the data set's recipe, the options' length, batch and lr, and `changes`."""
        given = {
            "samples": parse_count("samples", self.samples) if self.samples else None,
            "batch": self.batch,
            "lr": self.lr,
        }
        return method_recipe(kind, self.dataset, **{**given, **changes})

    def schedule(self) -> tuple[int, ...]:
        """The time schedule, as numbers."""
        return parse_time_schedule(self.time_schedule)

    def architecture(self) -> tuple[str, dict[str, Any]]:
        """The teacher's preset and its settings."""
        taught = self.taught()
        network = taught.network or load_model(taught.path or "", "teacher").network
        return network.name, {**presets[network.name].settings, **network.options}

    def third(self) -> tuple[str, dict[str, Any]]:
        """A student of about a third of the teacher's parameters: 60.0M -> 19.4M; 0.57 of the width elsewhere."""
        name, settings = self.architecture()
        if name == "unet_cifar10":
            return "unet_cifar10_small", {}
        width = width_name(settings)
        return name, {width: max(4, round(settings[width] * 0.57 / 4) * 4)}

    def run(self, method: MethodConfig, *, per_phase: int = 2) -> RunConfig:
        """The run that every trial starts from, scored `per_phase` times in each phase."""
        return RunConfig(
            teacher=self.taught(),
            method=method,
            evaluation=EvaluationConfig(samples=self.evaluation_samples, features=self.features, per_phase=per_phase),
            seed=self.seed,
        )


def width_name(settings: Mapping[str, Any]) -> str:
    """What a network's settings call its width."""
    return next(name for name in ("width", "channels") if name in settings)
