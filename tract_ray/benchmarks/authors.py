"""`python -m tract_ray.benchmarks.authors CLONE`: the program of TRACT's authors (apple/ml-tract) beside this one.

Their own `train_op` is called on networks of ours (float64, small), with the random numbers of a script in place of
torch's; our loop trains the scaled-down recipe with the same. Nothing of theirs is part of this package: `CLONE` is
where their repository was cloned to. Their programs read flags with `absl-py`; for EDM's, EDM's repository lies in
`CLONE/edm`, as theirs has it. What else they import for pictures and records is not needed and replaced where missing.
"""

from __future__ import annotations

import copy
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from torch import Tensor, nn

from tract_ray.benchmarks.scripted import (
    SHAPE,
    Outcome,
    Script,
    distance,
    networks,
    scripts,
    train_scripted,
    weights_of,
)
from tract_ray.config import choose, require
from tract_ray.terminal import make_console, print_table, run_app

BATCH, STEPS = 3, 40
SCHEDULE = (64, 8, 1)
UNUSED = ("tensorboard", "imageio", "einops", "lmdb", "requests", "clean_fid", "moviepy")
"""What their modules import beside torch, and no training step calls."""


@dataclass(frozen=True)
class Program:
    """One of their programs: the recipe that follows it, what it needs in the clone, and what runs it."""

    recipe: str
    files: tuple[str, ...]
    run: Callable[[Sequence[Script]], Outcome]
    changes: dict[str, Any]


@contextmanager
def importable(clone: Path, program: Program) -> Iterator[None]:
    """Let their modules be imported, and take them back afterwards."""
    for file in program.files:
        told = "its submodule is missing (git submodule update --init)" if file.startswith("edm/") else ""
        told = told or f"{clone} is no clone of apple/ml-tract"
        require((clone / file).is_file(), "path", f"{told}: there is no {clone / file}")
    require(importlib.util.find_spec("absl") is not None, "path", "its programs need absl-py (pip install absl-py)")
    missing = {name for name in UNUSED if importlib.util.find_spec(name) is None}
    before, path = set(sys.modules), list(sys.path)
    finder = _StandIns(missing)
    sys.path[:0] = [str(clone), str(clone / "edm")]
    sys.meta_path.append(finder)
    try:
        with mock.patch.dict(os.environ, ML_DATA=os.environ.get("ML_DATA", "unused")):  # read when it is imported
            distributed: Any = importlib.import_module("lib.distributed")
        distributed.device = distributed.device_id = lambda: "cpu"
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.path[:] = path
        for name in set(sys.modules) - before:
            if name.split(".")[0] in {"lib", "tc_distill", "tc_distill_edm", "dnnlib", "torch_utils", *missing}:
                del sys.modules[name]


class _StandIns:
    """Finds modules that are not installed, with everything in them."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if name.split(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> Any:
        made = mock.MagicMock()
        made.__path__, made.__spec__ = [], spec
        return made

    def exec_module(self, module: Any) -> None:
        pass


class _Logsnr(nn.Module):
    """A network of ours as they call theirs: `forward(x, logsnr)`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, logsnr: Tensor) -> Tensor:
        return self.net(x.double(), logsnr.double(), None)  # type: ignore[no-any-return]


class _Preconditioned(nn.Module):
    """A network of ours as EDM's `D(x, sigma)` (Karras et al. 2022, table 1, sigma_data 0.5)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        x, s = x.double(), sigma.double().reshape(-1, 1, 1, 1)
        total = s.square() + 0.25
        out: Tensor = self.net(x / total.sqrt(), -2 * s.flatten().log(), None)
        return 0.25 / total * x + 0.5 * s / total.sqrt() * out


def _train(model: Any, script: Sequence[Script]) -> Outcome:
    """Call their `train_op` for each step, with the script's numbers for torch's.

    They draw the group, then the step within it counted from its end, where this package counts from its start.
    """
    info: Any = importlib.import_module("lib.train").TrainInfo
    norms: list[float] = []
    clip = torch.nn.utils.clip_grad_norm_

    def clipped(parameters: Any, most: float) -> Tensor:
        norm = clip(parameters, most)
        norms.append(float(norm))
        return norm

    for step, given in enumerate(script):
        numbers = iter(given.uniforms)

        def integers(*limits: Any, numbers: Iterator[Tensor] = numbers, **_: Any) -> Tensor:
            u = next(numbers)
            if len(limits) == 3:
                return limits[0] + (u * (limits[1] - limits[0])).long()  # type: ignore[no-any-return]
            return limits[0] - 1 - (u * limits[0]).long()  # type: ignore[no-any-return]

        def noise(x: Tensor, given: Script = given) -> Tensor:
            return given.noises[0]

        with (
            mock.patch.object(torch, "randint", integers),
            mock.patch.object(torch, "randn_like", noise),
            mock.patch.object(torch.nn.utils, "clip_grad_norm_", clipped),
        ):
            model.train_op(info(step * BATCH, step / len(script)), given.images, None)
    held = {"student": model.model, "self_teacher": model.self_teacher.module, "inference": model.model_eval.module}
    return Outcome(norms, {name: weights_of(network) for name, network in held.items()})


def _vp(script: Sequence[Script]) -> Outcome:
    """`tc_distill.py` with its own defaults, at 16x16."""
    program: Any = importlib.import_module("tc_distill")
    teacher, student = networks("tract-cifar10")
    program.get_model = lambda name: _Logsnr(copy.deepcopy(student).requires_grad_(True))
    program.FLAGS.train_len, program.FLAGS.batch = str(len(script) * BATCH), BATCH
    settings = {"reset": "none", "batch": BATCH, "lr": 2e-4, "ema_residual": 1e-3, "sema": 0.5}
    schedule = ",".join(map(str, SCHEDULE))
    model = program.TCDistillGoogleModel("cifar10", SHAPE[-1], SCHEDULE[0], time_schedule=schedule, **settings)
    model.teacher.net.load_state_dict(teacher.state_dict())
    return _train(model, script)


def _edm(script: Sequence[Script]) -> Outcome:
    """`tc_distill_edm.py`: its class without its constructor, which downloads a teacher."""
    program: Any = importlib.import_module("tc_distill_edm")
    average: Any = importlib.import_module("lib.optim").ModuleEMA
    teacher, student = networks("tract-edm-cifar10")
    model = program.EluDDIM05TCMultiStepx0.__new__(program.EluDDIM05TCMultiStepx0)
    nn.Module.__init__(model)
    model.params, model.num_classes = SimpleNamespace(lr_warmup=None, lr=1e-3), 10
    model.timesteps, model.time_schedule = 40, (40, 1)
    model.model, model.teacher = _Preconditioned(copy.deepcopy(student)), _Preconditioned(copy.deepcopy(teacher))
    model.model_eval = average(model.model, momentum=1e-3 ** (1 / len(script))).requires_grad_(False)
    model.self_teacher = average(model.model, momentum=0.5).requires_grad_(False)
    model.opt = torch.optim.Adam(model.model.parameters(), lr=1e-3, weight_decay=0.0)
    nodes = torch.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), 40, dtype=torch.double).pow(7)
    model.register_buffer("sigma", torch.cat([torch.zeros_like(nodes[:1]), nodes]))
    return _train(model, script)


PROGRAMS = {
    "vp": Program("tract-cifar10", ("tc_distill.py", "lib/train.py"), _vp, {"time_schedule": SCHEDULE}),
    "edm": Program("tract-edm-cifar10", ("tc_distill_edm.py", "lib/train.py", "edm/dnnlib/util.py"), _edm, {}),
}


def compare(clone: Path, name: str) -> dict[str, str]:
    """A row of the table: how far apart the two programs end, as shares of the distance that the student moved."""
    program = PROGRAMS[choose("program", name, PROGRAMS)]
    script = scripts(STEPS, BATCH)
    with importable(clone, program):
        theirs = program.run(script)
    with tempfile.TemporaryDirectory() as folder:
        ours = train_scripted(program.recipe, script, Path(folder), **program.changes)
    moved = distance(theirs.weights["student"], weights_of(networks(program.recipe)[1]))
    row = {"program": program.files[0], "steps": str(len(script))}
    row |= {part: f"{distance(ours.weights[part], own) / moved:.1e}" for part, own in theirs.weights.items()}
    if not theirs.norms:
        return row | {"gradient norms": "they take none"}
    apart = max(abs(a / b - 1) for a, b in zip(ours.norms, theirs.norms, strict=True))
    clipped = [sum(norm > 1 for norm in norms) for norms in (theirs.norms, ours.norms)]
    return row | {
        "gradient norms": f"{apart:.1e}",
        "clipped": f"{clipped[0]}, ours {clipped[1]}; median norm {median(theirs.norms):.0f}",
    }


def main(
    path: Annotated[Path, typer.Argument(help="A clone of github.com/apple/ml-tract.")],
    program: Annotated[str, typer.Option(help="vp (tc_distill.py) or edm (tc_distill_edm.py).")] = "vp",
) -> None:
    """Train with the program of TRACT's authors and with this one from the same numbers; say how far apart they end."""
    torch.set_num_threads(1)
    row = compare(path.expanduser().absolute(), program)
    print_table(make_console(), "apart, as shares of the distance that the student moved", [row])


if __name__ == "__main__":
    application = typer.Typer(add_completion=False)
    application.command()(main)
    run_app(application)
