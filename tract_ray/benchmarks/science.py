"""`make science`: the findings of the papers on digits, measured and checked.

Everything is compared as the ratio of two distances measured in the same way: a fully trained teacher, fixed noise,
4,000 images, the mean over seeds. What may be claimed at this size, and what not, was found with a prototype: TRACT
against its teacher, mu_s, one phase against two; not two phases against three, nor mu_i.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import torch
import typer

from tract_ray.benchmarks.choices import choice_arms, choice_claims
from tract_ray.benchmarks.claims import Claim
from tract_ray.config import choose, config_hash
from tract_ray.distillation import methods
from tract_ray.files import write_text
from tract_ray.terminal import duration, make_console, print_table, run_app
from tract_ray.training import (
    EvaluationConfig,
    NetworkConfig,
    Paths,
    RunConfig,
    TeacherConfig,
    run_distillation,
    score_teacher,
    teacher_folder,
    train_teacher,
)
from tract_ray.training.recipes import method_recipe, teacher_recipe

FULLY_TRAINED: dict[str, Any] = {"samples": 6000 * 256, "batch": 256, "lr": 1.5e-3, "ema": 0.999}
"""The teacher. One trained at twice the rate was as good, but distilled in one phase as well as to
1.6 times two phases' distance: the ratio of one phase to two depends on the teacher more than the other claims do."""
SMALL_NETWORK = "mlp_8x8_small"
SMALL_TEACHER = "the small teacher"  # stands for its folder, which depends on where runs are stored


Arm = tuple[RunConfig, Sequence[int]]  # a run, and the seeds it is measured with


def tract_arms(teacher: TeacherConfig, samples: int, seeds: Sequence[int]) -> dict[str, Arm]:
    """TRACT on digits with the default recipe, and what the paper varies."""
    base = RunConfig(
        teacher=teacher,
        method=method_recipe("tract", "digits", samples=samples),
        evaluation=EvaluationConfig(samples=4000, per_phase=1),
    )
    return {
        "TRACT 1024,32,1": (base, seeds),
        "mu_s 0.99": (base.replace_method(mu_s=0.99), seeds),
        "one phase 1024,1": (base.replace_method(time_schedule=(1024, 1)), seeds),
    }


def tract_claims(mean_of: Mapping[str, float]) -> list[Claim]:
    """What the paper finds and digits can show."""
    tract = mean_of["TRACT 1024,32,1"]
    return [
        Claim("one step of the student / one step of the teacher", tract / mean_of["teacher, 1 step"], 0.08, True),
        Claim("distance(mu_s 0.99) / distance(mu_s 0.5)", mean_of["mu_s 0.99"] / tract, 1.8, False),
        Claim("one phase / two phases", mean_of["one phase 1024,1"] / tract, 2.0, False),
    ]


def method_arms(seeds: Sequence[int]) -> dict[str, Arm]:
    """Every method on digits: at equal samples where they are compared with each other.

    TRACT and BTD have the settings of the prototype, the same for both: an even error of v (the weight SNR + 1), a
    constant learning rate, the inference average of the heuristic. "BTD, annealed" is BTD as its paper trains it;
    "regression, equal calls" calls its teacher as often as TRACT calls its two: twice for each of 128,000 samples.
    """
    teacher = teacher_recipe("digits", **FULLY_TRAINED)
    small = teacher_recipe("digits", SMALL_NETWORK, **FULLY_TRAINED)
    edm = teacher_recipe("digits", schedule="ve_karras", prediction="edm", weighting="edm")

    def run(kind: str, taught: TeacherConfig = teacher, *, marks: int = 1, **changes: object) -> RunConfig:
        evaluation = EvaluationConfig(samples=4000, rung_samples=100, per_phase=marks)
        return RunConfig(teacher=taught, method=method_recipe(kind, "digits", **changes), evaluation=evaluation)

    even: dict[str, Any] = {"weighting": "snr_plus_one", "lr_decay": "constant"}
    tract, little = run("tract", **even), NetworkConfig(name=SMALL_NETWORK)
    return {
        "TRACT": (tract, seeds),
        "BTD": (run("progressive", **even).replace_method(mu_i=None), seeds),
        "BTD, annealed": (run("progressive"), seeds),
        "consistency": (run("consistency"), seeds),
        "regression": (run("regression"), seeds),
        "regression, equal calls": (run("regression", pairs=8000, teacher_steps=32), seeds),
        "TRACT, twice as long": (run("tract", samples=4000 * 64, **even), seeds),
        "moment matching, 1 step": (run("moment_matching", marks=4, sampling_steps=1), seeds),
        "moment matching, 8 steps": (run("moment_matching", marks=4, sampling_steps=8), seeds),
        "TRACT, EDM teacher": (run("tract_edm", edm, samples=3000 * 64, batch=64), seeds),
        "KD: small from big": (replace(tract, student=little, student_from=SMALL_TEACHER), seeds),
        "small from small": (run("tract", small, **even), seeds),
    }


def method_claims(mean_of: Mapping[str, float]) -> list[Claim]:
    """How the methods stand to each other and to their teachers."""
    tract, btd = mean_of["TRACT"], mean_of["BTD"]
    edm, small = mean_of["TRACT, EDM teacher"], mean_of["small from small"]
    worse = max(tract, btd)
    eight, one = mean_of["moment matching, 8 steps"], mean_of["moment matching, 1 step"]
    return [
        Claim("TRACT / BTD, equal settings", tract / btd, 0.93, True),
        Claim("worse of TRACT, BTD / consistency in one phase", worse / mean_of["consistency"], 1.0, True),
        Claim("moment matching / teacher DDIM, both 8 steps", eight / mean_of["teacher, 8 steps"], 0.7, True),
        Claim("moment matching / TRACT, both 1 step", one / mean_of["TRACT, twice as long"], 1.0, True),
        Claim("small from big / small from small", mean_of["KD: small from big"] / small, 1.0, True),
        # What larger images show in the papers, or would, and these do not.
        Claim("TRACT 40,1 / its EDM teacher in 40 Heun steps", edm / mean_of["EDM teacher"]),
        Claim("TRACT / BTD annealed as in its paper", tract / mean_of["BTD, annealed"]),
        Claim("worse of TRACT, BTD / regression", worse / mean_of["regression"]),
        Claim("worse of TRACT, BTD / regression, equal calls", worse / mean_of["regression, equal calls"]),
    ]


def measure(arm: str, seed: int, run: RunConfig, paths: Paths) -> tuple[str, int, float]:
    """Distance of the student of one arm and seed; stored runs are found again."""
    torch.set_num_threads(1)
    if run.student_from == SMALL_TEACHER:
        start = teacher_folder(teacher_recipe("digits", SMALL_NETWORK, **FULLY_TRAINED), paths)
        run = replace(run, student_from=str(start))
    run = replace(run, seed=seed)
    result = run_distillation(run, paths, paths.storage / "science" / config_hash(run))
    # The method's own mu_i, not the best of a bank; but what keeps its best evaluation reports that.
    keeps_best = methods[run.method.kind].keeps_best
    own = next(iter(result.distances))
    return arm, seed, result.distance if keeps_best else result.reported.get(own, result.distances[own])


def run_arms(
    arms: Mapping[str, Arm],
    references: Mapping[str, tuple[TeacherConfig, int]],
    paths: Paths,
    say: Callable[[str], None],
    processes: int = 1,
) -> dict[str, list[float]]:
    """Train the teachers, then measure every arm with its seeds, and the teachers' `references` (at so many steps)."""
    torch.set_num_threads(1)
    started, configs = time.monotonic(), {config_hash(run.teacher): run.teacher for run, _ in arms.values()}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_train_quietly, configs.values(), [paths] * len(configs)))
        say(f"{len(configs)} teacher(s) ready after {duration(time.monotonic() - started)}")
        found: dict[str, list[float]] = {}
        evaluation = next(iter(arms.values()))[0].evaluation
        for name, (teacher, steps) in references.items():
            found[name] = [score_teacher(teacher, evaluation, paths, steps).distance]
            say(f"{name:<26}         {found[name][0]:8.3f}")
        jobs = [(arm, seed, run, paths) for arm, (run, seeds) in arms.items() for seed in seeds]
        for arm, seed, distance in pool.map(measure, *zip(*jobs, strict=True)):
            found.setdefault(arm, []).append(distance)
            say(f"{arm:<26} seed {seed}  {distance:8.3f}")
    return found


def _train_quietly(teacher: TeacherConfig, paths: Paths) -> None:
    torch.set_num_threads(1)
    train_teacher(teacher, paths)


def main(
    part: Annotated[
        str,
        typer.Option(help="tract: the paper's findings. methods: each against the others. choices: the authors' own."),
    ] = "tract",
    seeds: Annotated[int, typer.Option(help="Seeds of every arm.")] = 3,
    storage: Annotated[Path | None, typer.Option(help="Folder of runs and caches; default: runs.")] = None,
    processes: Annotated[int, typer.Option(help="Students trained at once.")] = min(2, os.cpu_count() or 1),
) -> None:
    """Check findings of the papers on digits and print the ratios. Status 1 where one does not hold."""
    choose("part", part, ("tract", "methods", "choices"))
    console = make_console()
    started, paths = time.monotonic(), Paths.at(storage)
    arms: Mapping[str, Arm]
    if part == "tract":
        arms, claims_of = tract_arms(teacher_recipe("digits", **FULLY_TRAINED), 2000 * 64, range(seeds)), tract_claims
    elif part == "choices":
        arms, claims_of = choice_arms(teacher_recipe("digits", **FULLY_TRAINED), range(seeds)), choice_claims
    else:
        arms, claims_of = method_arms(range(seeds)), method_claims
    found = run_arms(arms, references_of(part, arms), paths, console.print, processes)
    claims = claims_of({name: mean(values) for name, values in found.items()})
    rows: list[Mapping[str, Any]] = [
        {"": name, "mean": f"{mean(values):.2f}", "by seed": "  ".join(f"{v:.2f}" for v in values)}
        for name, values in found.items()
    ]
    print_table(console, "fid_digits, 4,000 images from fixed noise", rows)
    checks: list[Mapping[str, Any]] = [
        {
            "claim": c.text,
            "measured": f"{c.ratio:.3f}",
            "bound": "none" if c.bound is None else f"{'<=' if c.at_most else '>='} {c.bound:g}",
            "": "not claimed" if c.bound is None else "holds" if c.holds else "FAILS",
        }
        for c in claims
    ]
    print_table(console, f"checked, mean of {seeds} seeds", checks)
    write_text(paths.storage / f"science-{part}.json", json.dumps(found, indent=1))
    console.print(f"took {duration(time.monotonic() - started)}")
    if not all(c.holds for c in claims):
        raise typer.Exit(1)


def references_of(part: str, arms: Mapping[str, Arm]) -> dict[str, tuple[TeacherConfig, int]]:
    """The teachers' distances that the claims of a part need, by name: (teacher, steps)."""
    teacher = next(iter(arms.values()))[0].teacher
    if part != "methods":
        return {"teacher, 1 step": (teacher, 1)}
    return {
        "teacher, 32 steps": (teacher, 32),
        "teacher, 8 steps": (teacher, 8),
        "small teacher, 32 steps": (arms["small from small"][0].teacher, 32),
        "EDM teacher": (arms["TRACT, EDM teacher"][0].teacher, 40),
    }


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_app(app)
