"""`make science`: the paper's findings on digits, measured and checked. Run as `python -m tract_ray.science`.

Everything is compared as the ratio of two distances measured in the same way: a fully trained teacher, fixed noise,
4,000 images, the mean over seeds. What may be claimed at this size, and what not, was found with a prototype: TRACT
against its teacher, mu_s, one phase against two; not two phases against three, nor mu_i.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Annotated

import torch
import typer
from rich.console import Console

from tract_ray.config import config_hash
from tract_ray.terminal import duration, print_table, run_app
from tract_ray.training import EvaluationConfig, Paths, RunConfig, run_distillation, score_teacher, train_teacher
from tract_ray.training.recipes import method_recipe, teacher_recipe

ARMS: dict[str, dict[str, object]] = {
    "TRACT 1024,32,1": {},
    "mu_s 0.99": {"mu_s": 0.99},
    "one phase 1024,1": {"time_schedule": (1024, 1)},
}


@dataclass(frozen=True)
class Claim:
    """A ratio of two measured distances and its bound."""

    text: str
    ratio: float
    bound: float
    at_most: bool

    @property
    def holds(self) -> bool:
        """Whether the ratio is on its side of the bound."""
        return self.ratio <= self.bound if self.at_most else self.ratio >= self.bound


def study(samples: int, teacher_samples: int | None, evaluation_samples: int) -> RunConfig:
    """The run that every arm changes: TRACT on digits with the default recipe."""
    return RunConfig(
        teacher=teacher_recipe("digits", samples=teacher_samples),
        method=method_recipe("tract", "digits", samples=samples),
        evaluation=EvaluationConfig(samples=evaluation_samples, per_phase=1),
    )


def measure(arm: str, seed: int, base: RunConfig, paths: Paths) -> tuple[str, int, float]:
    """Distance of the student of one arm and seed; stored runs are found again."""
    torch.set_num_threads(1)
    run = replace(base.replace_method(**ARMS[arm]), seed=seed)
    result = run_distillation(run, paths, paths.storage / "science" / config_hash(run))
    own = next(iter(result.distances.values()))  # the method's own mu_i, not the best of a bank
    return arm, seed, own


def check(one_step: float, distances: dict[str, list[float]]) -> list[Claim]:
    """The three claims, from the teacher's one-step distance and the arms' distances by seed."""
    tract = mean(distances["TRACT 1024,32,1"])
    return [
        Claim("one step of the student / one step of the teacher", tract / one_step, 0.08, True),
        Claim("distance(mu_s 0.99) / distance(mu_s 0.5)", mean(distances["mu_s 0.99"]) / tract, 1.8, False),
        Claim("one phase / two phases", mean(distances["one phase 1024,1"]) / tract, 2.0, False),
    ]


def run_science(
    base: RunConfig, paths: Paths, seeds: Sequence[int], say: Callable[[str], None], processes: int = 1
) -> tuple[dict[str, list[float]], list[Claim], float]:
    """Train the teacher, measure every arm with every seed, and check."""
    torch.set_num_threads(1)
    size, started = base.teacher.training.batch, time.monotonic()
    total = base.teacher.training.samples // size
    train_teacher(
        base.teacher,
        paths,
        on_step=lambda step, loss: say(f"teacher  {step * size:,} of {total * size:,} images  loss {loss:.4f}"),
    )
    one_step = score_teacher(base.teacher, base.evaluation, paths, 1).distance
    say(f"teacher ready after {duration(time.monotonic() - started)}; one step of it: {one_step:.2f}")
    distances: dict[str, list[float]] = {arm: [] for arm in ARMS}
    jobs = [(arm, seed, base, paths) for seed in seeds for arm in ARMS]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for arm, seed, distance in pool.map(measure, *zip(*jobs, strict=True)):
            distances[arm].append(distance)
            say(f"{arm:<18} seed {seed}  {distance:8.3f}")
    return distances, check(one_step, distances), one_step


def main(
    seeds: Annotated[int, typer.Option(help="Seeds of every arm.")] = 3,
    samples: Annotated[int, typer.Option(help="Training images of every student.")] = 2000 * 64,
    storage: Annotated[Path | None, typer.Option(help="Folder of runs and caches; default: runs.")] = None,
    processes: Annotated[int, typer.Option(help="Students trained at once.")] = min(2, os.cpu_count() or 1),
) -> None:
    """Check the paper's findings on digits and print the ratios. Status 1 where one does not hold."""
    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()
    paths = Paths.at(storage)
    base = study(samples, None, 4000)
    distances, claims, one_step = run_science(base, paths, range(seeds), console.print, processes)
    rows = [
        {"": arm, "mean": f"{mean(values):.2f}", "by seed": "  ".join(f"{v:.2f}" for v in values)}
        for arm, values in distances.items()
    ]
    print_table(console, "fid_digits of one-step students, 4,000 images", rows)
    checks = [
        {
            "claim": c.text,
            "measured": f"{c.ratio:.3f}",
            "bound": f"{'<=' if c.at_most else '>='} {c.bound:g}",
            "": "holds" if c.holds else "DOES NOT HOLD",
        }
        for c in claims
    ]
    print_table(console, f"checked, mean of {seeds} seeds, teacher at one step {one_step:.2f}", checks)
    (paths.storage / "science.json").write_text(json.dumps({"distances": distances, "teacher_1": one_step}, indent=1))
    console.print(f"took {duration(time.monotonic() - started)}")
    if not all(c.holds for c in claims):
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_app(app)
