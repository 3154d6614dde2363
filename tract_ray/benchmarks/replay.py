"""Sweeps replayed from the record of an exhaustive one: the same searcher, with recorded scores instead of training.

Whether stopping and sharing find what plain search finds, and for how many images, takes hundreds of sweeps to answer.
Run as `python -m tract_ray.benchmarks.replay RECORD`, after `… replay --record SWEEP_FOLDER RECORD` made the record.
"""

from __future__ import annotations

import heapq
import json
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import optuna
import typer

from tract_ray.analysis.statistics import interval
from tract_ray.cluster.tune_searcher import StudySearcher
from tract_ray.config import config_hash, from_dict, require
from tract_ray.files import read_json
from tract_ray.search.budget import Budget
from tract_ray.search.jobs import Job
from tract_ray.search.space import Space, apply_changes
from tract_ray.search.study import Search, enqueue_anchors, sampler_for
from tract_ray.sweep.options import Options
from tract_ray.terminal import make_console, print_table, run_app
from tract_ray.training import RunConfig, RunResult
from tract_ray.training.record import read_scores
from tract_ray.training.stage_store import StageStore
from tract_ray.training.stages import Stage

IMAGES_A_SECOND = 4000.0


@dataclass(frozen=True)
class Curve:
    """One recorded run: scores at samples seen, the final distance of its bank's best average and that of its own."""

    points: tuple[tuple[int, float], ...]
    final: float
    own: float


@dataclass(frozen=True)
class Recorded:
    """An exhaustive sweep: the run that its trials started from, and each configuration's curves, seed by seed."""

    run: RunConfig
    curves: dict[str, list[Curve]]

    def mean(self, run: RunConfig) -> float:
        """The distance of a configuration: the mean over its seeds of the bank's best."""
        return float(np.mean([curve.final for curve in self.curves[_key(run)]]))

    def best(self) -> tuple[float, list[float]]:
        """The smallest mean and its seeds' distances."""
        finals = [[curve.final for curve in curves] for curves in self.curves.values()]
        best = min(finals, key=lambda seeds: float(np.mean(seeds)))
        return float(np.mean(best)), best


def record(sweeps: Sequence[Path], out: Path) -> int:
    """Write the curves of `sweeps`, folders of sweeps that differ in their seed, to `out`; returns how many."""
    base = read_json(sweeps[0] / "sweep.json", "sweep")["config"]
    curves = []
    for file in sorted(file for sweep in sweeps for file in (sweep / "trials").glob("*/result.json")):
        config = read_json(file.parent / "config.json", "sweep")["config"]
        result = RunResult.from_json(read_json(file, "sweep"))
        curves.append(
            {
                "method": _difference(base["method"], config["method"]),
                "seed": config["seed"],
                "points": [(samples, round(score.distance, 4)) for samples, score in read_scores(file.parent)],
                "final": round(result.distance, 4),
                "own": round(next(iter(result.distances.values())), 4),  # a method's own average comes first
            }
        )
    curves.sort(key=lambda curve: curve["seed"])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"run": base, "curves": curves}, indent=None, separators=(",", ":")) + "\n")
    return len(curves)


def _difference(base: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in other.items() if base.get(name) != value}


def load(path: Path) -> Recorded:
    """Read what `record` wrote."""
    data = read_json(path, "record")
    run = from_dict(RunConfig, data["run"])
    curves: dict[str, list[Curve]] = {}
    for item in data["curves"]:
        own = apply_changes(run, {f"method.{name}": value for name, value in item["method"].items()})
        points = tuple((int(samples), float(distance)) for samples, distance in item["points"])
        curves.setdefault(_key(own), []).append(Curve(points, float(item["final"]), float(item["own"])))
    return Recorded(run, curves)


def _key(run: RunConfig) -> str:
    return config_hash(run.method)


class _Trained(StageStore):
    """The stages that replayed runs have trained so far."""

    def __init__(self) -> None:
        self.paths, self.keys = None, set[str]()

    def has(self, stage: Stage) -> bool:
        return stage.key in self.keys


@dataclass(frozen=True)
class Outcome:
    """How a replayed sweep ended: images trained, the distance of its best student, and the mean of that student's
    configuration over all recorded seeds; `path` is (images, best so far) on the way.
    """

    images: int
    best: float
    mean: float
    path: tuple[tuple[int, float], ...]

    def reached(self, distance: float) -> float:
        """Images after which the best so far was at most `distance`; infinite if never."""
        return next((float(images) for images, best in self.path if best <= distance), float("inf"))


@dataclass
class _Run:
    """A run that is being replayed: its curve, the stages that others had trained, and the next of its points."""

    job: Job
    curve: Curve
    reused: set[str]
    place: int = 0

    def cost_to(self, samples: int) -> int:
        """Images that it trains itself up to `samples`: none within a stage that is there."""
        total = begin = 0
        for stage in self.job.stages:
            end = begin + stage.samples
            if stage.key not in self.reused:
                total += max(0, min(end, samples) - begin)
            begin = end
        return total


def replay(
    space: Space, recorded: Recorded, search: Search, *, sharing: bool = True, bank: bool = True, slots: int = 2
) -> Outcome:
    """Run a sweep in simulated time: each slot trains 4,000 images a second.

    A sweep's seed is its runs' seed, and picks their recorded curves. Without `sharing` every run trains all of its
    images; without a `bank` its student is the average that it was asked for.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler_for(space, search), pruner=search.build_pruner())
    enqueue_anchors(study, space, search)
    store = _Trained()
    searcher = StudySearcher(
        study, space, recorded.run, search, lambda job: None, lambda *_: None, store if sharing else None
    )
    events: list[tuple[float, str]] = []  # when a run reaches its next point
    runs: dict[str, _Run] = {}
    best = mean = float("inf")
    path: list[tuple[int, float]] = []
    now, asked = 0.0, 0
    while True:
        while len(runs) < slots and isinstance(searcher.suggest(name := f"run-{asked:05d}"), dict):
            asked += 1
            job = searcher.live[name]
            curves = recorded.curves[_key(job.run)]
            reused = {stage.key for stage in job.stages if store.has(stage)} if sharing else set()
            run = runs[name] = _Run(job, curves[(search.seed + job.repeat) % len(curves)], reused)
            heapq.heappush(events, (now + run.cost_to(run.curve.points[0][0]) / IMAGES_A_SECOND, name))
        if not events:
            return Outcome(int(searcher.account.total("trained")), best, mean, tuple(path))
        now, name = heapq.heappop(events)
        run = runs[name]
        samples, distance = run.curve.points[run.place]
        trained, last = run.cost_to(samples), run.place == len(run.curve.points) - 1
        final = run.curve.final if bank else run.curve.own
        store.keys.update(stage.key for stage in run.job.stages if stage.end * run.job.run.method.batch <= samples)
        result = {
            "samples": samples,
            "distance": final if last else distance,
            "finished": last,
            "trained": trained,
            "device_seconds": trained / IMAGES_A_SECOND,
        }
        searcher.on_trial_result(name, result)
        if last or searcher.should_stop(name, result):
            searcher.on_trial_complete(name, result)
            del runs[name]
            if last and final < best:
                best, mean = final, recorded.mean(run.job.run)
                path.append((int(searcher.account.total("trained")), best))
        else:
            run.place += 1
            ahead = run.cost_to(run.curve.points[run.place][0]) - trained
            heapq.heappush(events, (now + ahead / IMAGES_A_SECOND, name))


def compare(space: Space, recorded: Recorded, search: Search, whole_runs: int, seeds: int) -> list[dict[str, Any]]:
    """For each seed, `search` and random search, both with the images of so many whole runs.

    Random search has no anchors, shares and stops nothing; it is there without a bank and with one.
    """
    rows = []
    images = whole_runs * recorded.run.method.samples
    for seed in range(seeds):
        ours = replay(space, recorded, replace(search, seed=seed, budget=Budget(images=images)))
        random = Search(trials=whole_runs, seed=seed, sampler="random", pruner="none")
        plain, banked = (
            replay(replace(space, anchors=()), recorded, random, sharing=False, bank=b) for b in (False, True)
        )
        rows.append(
            {
                "seed": seed,
                "images": ours.images / images,
                "best": ours.best,
                "random": plain.best,
                "reached": ours.reached(plain.best) / images,
                "banked": banked.best,
                "mean": ours.mean,
                "random's mean": plain.mean,
            }
        )
    return rows


def main(
    file: Annotated[Path, typer.Argument(help="The record: JSON.")],
    record_from: Annotated[
        list[Path] | None, typer.Option("--record", help="Make it from this sweep's folder; may be given again.")
    ] = None,
    script: Annotated[Path, typer.Option(help="The sweep script whose space it is.")] = Path("sweeps/mu_search.py"),
    whole_runs: Annotated[int, typer.Option(help="The budget, in whole runs.")] = 24,
    trials: Annotated[int, typer.Option(help="Trials of a sweep, if the budget allows them.")] = 96,
    reduction: Annotated[int, typer.Option(help="Halving keeps one in this many.")] = Search.reduction,
    rungs: Annotated[int, typer.Option(help="Marks of the last phase at which trials compete.")] = Search.rungs,
    sampler: Annotated[str, typer.Option(help="Of the sweep.")] = Search.sampler,
    seeds: Annotated[int, typer.Option(help="Replayed sweeps.")] = 10,
) -> None:
    """Replay a sweep with sharing and early stopping against plain random search, from recorded curves."""
    console = make_console()
    if record_from:
        console.print(f"{record(record_from, file)} curves")
        return
    recorded = load(file)
    plan = runpy.run_path(str(script))["plan"]
    space, _ = plan(Options(samples=str(recorded.run.method.samples)))
    require(bool(recorded.curves), "record", f"{file} holds no curves")
    search = Search(trials=trials, reduction=reduction, rungs=rungs, sampler=sampler)
    rows = compare(space, recorded, search, whole_runs, seeds)
    shown = [{key: f"{v:.3g}" if isinstance(v, float) else f"{v:,}" for key, v in row.items()} for row in rows]
    best, of_seeds = recorded.best()
    top = interval(of_seeds)
    print_table(console, f"the images of {whole_runs} whole runs; halving by {reduction}, {rungs} rung(s)", shown)
    console.print(
        "images: what the sweep trained, of the budget; best: its student; random: that of random search with the "
        "whole budget, reached by the sweep with that part of it; banked: that of random search whose runs have a "
        f"bank; mean: of the best's configuration over all {len(of_seeds)} seeds, {best:.3g} for the exhaustive best\n"
    )

    def count(what: str, holds: Callable[[dict[str, Any]], bool]) -> None:
        console.print(f"{what}: {sum(map(holds, rows))} of {seeds}")

    count("at least as good as random search", lambda row: row["best"] <= row["random"])
    count("as good for at most 40% of the budget", lambda row: row["reached"] <= 0.4)
    count("at least as good as random search with a bank", lambda row: row["best"] <= row["banked"])
    count(f"mean within the interval of the exhaustive best, {top}", lambda row: row["mean"] <= top.high)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_app(app)
