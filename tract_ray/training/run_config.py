"""What determines a run: its teacher, its method, its student, its evaluation and its seed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tract_ray.config import check_seed, check_types, choose, config_hash, flatten, require
from tract_ray.data import dataset_info
from tract_ray.diffusion import predictions
from tract_ray.distillation import DenoisingConfig, MethodConfig
from tract_ray.evaluation import LABELS, extractor_kind
from tract_ray.evaluation.extractors import extractors
from tract_ray.evaluation.metrics import metrics
from tract_ray.networks import build_network, presets

MAX_SCORED = 10_000_000


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A preset by name, and the settings of it that are overridden."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        preset = presets[choose("network", self.name, presets)]
        for option in self.options:
            choose("network options", option, preset.options)


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """A teacher to train (and to find again by the hash of this), or `path`: a model folder that exists."""

    dataset: str = "digits"
    network: NetworkConfig | None = None
    conditional: bool = False
    training: DenoisingConfig = field(default_factory=DenoisingConfig)
    seed: int = 0
    path: str | None = None

    def __post_init__(self) -> None:
        check_types(self)
        check_seed("teacher seed", self.seed)
        info = dataset_info(self.dataset)
        if self.network is None and self.path is None:
            require(bool(info.network), "network", f"{self.dataset} has no default network; name one with --network")
            object.__setattr__(self, "network", NetworkConfig(name=info.network))
        require(not self.conditional or info.num_classes > 1, "conditional", f"{self.dataset} has no classes")
        dropped = self.training.label_dropout and not self.conditional
        require(not dropped, "label_dropout", "drops labels of a conditional teacher; add --conditional")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How students are scored: `samples` images at the end, `rung_samples` on the way, from noise fixed by `seed`.

    What is not given is the data set's own (`on`): `features` are Inception's for photographs and a classifier's for
    the digits; with Inception's go 50,000 `samples` and `labels` drawn at `random`, as papers report them, with a
    classifier's 4,000 and `balanced` ones, the classes in turn. Labels matter to conditional networks only.
    Of a bank of averages the run's result is the `best`, or always the method's `own` mu_i, as a table of one setting
    against another needs it. On fresh noise that one alone is scored (`report` "chosen"), or "all" of the bank, as rows
    of several seeds need it: their average is the best in the mean, which need not be each seed's.
    """

    features: str = ""
    metric: str = "fid"
    samples: int | None = None
    rung_samples: int = 1000
    per_phase: int = 2
    labels: str | None = None
    seed: int = 0
    select: str = "best"
    report: str = "chosen"

    def __post_init__(self) -> None:
        check_types(self)
        check_seed("evaluation seed", self.seed)
        choose("select", self.select, ("best", "own"))
        choose("report", self.report, ("chosen", "all"))
        choose("metric", self.metric, metrics)
        if self.features:
            object.__setattr__(self, "features", extractor_kind(self.features))
        if self.labels is not None:
            choose("labels", self.labels, LABELS)
        for name, count in (("evaluation samples", self.samples), ("rung_samples", self.rung_samples)):
            require(count is None or count >= 2, name, f"must be at least 2, got {count}")
            require(count is None or count <= MAX_SCORED, name, f"must be at most {MAX_SCORED}, got {count}")
        require(self.per_phase >= 1, "per_phase", f"must be at least 1, got {self.per_phase}")

    def extractor(self, dataset: str) -> str:
        """The extractor to use on `dataset`: the given one, or the data set's own."""
        # The weights and resizing that most published numbers since EDM's were measured with.
        default = {"inception": "inception_legacy_tensorflow"}
        name = self.features or dataset_info(dataset).features
        return default.get(name, name)

    def on(self, dataset: str) -> EvaluationConfig:
        """The same evaluation with everything said that `dataset` decides."""
        kind = extractors[self.extractor(dataset)]
        return dataclasses.replace(
            self, features=kind.kind, samples=self.samples or kind.samples, labels=self.labels or kind.labels
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One distillation. `student` None takes the teacher's architecture.

    `students` names one for each phase in place of `student`, None for the phase before's (the teacher's): knowledge
    distillation within a time schedule. Where it changes, the student starts from what it shares with the phase's
    teacher, or `random`, and nothing of the phase before is kept.

    `student_from` says what weights the student starts from: `teacher` (every tensor of the same name and shape, so all
    of them for the same architecture), `random`, or a model folder, whose architecture it then takes by default.
    `parts` ends the run after so many parts of the method's paths (population-based training); 0 trains all.
    """

    teacher: TeacherConfig
    method: MethodConfig
    student: NetworkConfig | None = None
    students: tuple[NetworkConfig | None, ...] = ()
    student_from: str = "teacher"
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    parts: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_seed("seed", self.seed)
        parts = len(self.method.part_ends())
        require(0 <= self.parts <= parts, "parts", f"must be from 0 to the {parts} of the method's paths")
        phases = len(self.method.phases())
        fits = not self.students or len(self.students) == phases
        require(fits, "students", f"{phases} phase(s) need {phases} of them, got {len(self.students)}")
        require(not (self.students and self.student), "students", "say what student says; give one of the two")
        require(self.method.kind != "denoising", "method", "denoising trains teachers; use `tract-ray teacher`")

    @property
    def first_student(self) -> NetworkConfig | None:
        """The first phase's architecture, None for its teacher's."""
        return self.students[0] if self.students else self.student

    def replace_method(self, **changes: Any) -> RunConfig:
        """The same run with some of its method's settings changed."""
        return dataclasses.replace(self, method=dataclasses.replace(self.method, **changes))


def run_parameters(config: RunConfig) -> dict[str, Any]:
    """Every setting of a run by its dotted name, with the hash: MLflow's parameters."""
    return {**flatten(config), "config_hash": config_hash(config)}


def build_for(
    config: NetworkConfig, shape: tuple[int, int, int], prediction: str, num_classes: int, seed: int | None
) -> nn.Module:
    """The network of `config` for images `shape` whose output is read as `prediction`."""
    return build_network(
        config.name,
        shape,
        num_classes=num_classes,
        out_multiplier=predictions[prediction].channels,
        options={k: tuple(v) if isinstance(v, list) else v for k, v in config.options.items()},
        seed=seed,
    )
