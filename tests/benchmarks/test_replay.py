"""Replayed sweeps: the arithmetic of images, and what a record keeps of a sweep."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from services import ROOT
from studies import BANKED, SHARING

from tract_ray.analysis.statistics import interval
from tract_ray.benchmarks.replay import Curve, Recorded, _key, compare, load, record, replay
from tract_ray.distillation import DenoisingConfig
from tract_ray.search.space import apply_changes
from tract_ray.search.study import Search
from tract_ray.sweep.options import Options
from tract_ray.training import EvaluationConfig, NetworkConfig, Paths, RunConfig, TeacherConfig, run_distillation


def recorded(seeds: int = 2) -> Recorded:
    """Two values of mu_s times two of mu_i; mu_s 0.9 is worse everywhere, mu_i 0.75 a little better."""
    curves = {}
    for mu_s in (0.5, 0.9):
        for mu_i in (0.5, 0.75):
            run = apply_changes(BANKED, {"method.mu_s": mu_s, "method.mu_i": mu_i})
            level = 10 * mu_s - mu_i
            points = ((256, 4 * level), (512, 3 * level), (768, 2 * level), (1024, level))
            curves[_key(run)] = [Curve(points, level + seed, level + seed + 0.5) for seed in range(seeds)]
    return Recorded(BANKED, curves)


def test_the_best_of_the_record() -> None:
    assert recorded().best() == (pytest.approx(4.75), [pytest.approx(4.25), pytest.approx(5.25)])


def test_whole_runs_cost_what_they_are() -> None:
    search = Search(trials=4, pruner="none", sampler="grid")
    plain = replay(SHARING, recorded(), search, sharing=False, bank=False)
    assert plain.images == 4 * 1024
    assert plain.best == pytest.approx(4.75)  # of the first seed, by its own average
    assert plain.mean == pytest.approx(4.75)  # of both seeds, by the best of the bank
    assert replay(SHARING, recorded(), search, sharing=False).best == pytest.approx(4.25)
    assert plain.path[-1][1] == plain.best


def test_the_seed_of_a_sweep_is_that_of_its_runs() -> None:
    outcomes = [replay(SHARING, recorded(), Search(trials=4, pruner="none", sampler="grid", seed=s)) for s in (0, 1, 2)]
    assert [outcome.best for outcome in outcomes] == pytest.approx([4.25, 5.25, 4.25])


def test_shared_stages_cost_nothing_again() -> None:
    """Four runs of two first phases: 2 x 512 and 4 x 512 images."""
    search = Search(trials=4, pruner="none", sampler="grid")
    for slots in (1, 2):
        assert replay(SHARING, recorded(), search, slots=slots).images == 6 * 512


def test_stopped_runs_cost_what_they_saw() -> None:
    """The third and fourth anchors are worse half-way through phase 2, where they stop."""
    search = Search(trials=4, pruner="halving", finish_anchors=False)
    outcome = replay(SHARING, recorded(seeds=1), search, slots=1)
    assert outcome.best == pytest.approx(4.25)
    assert outcome.images == 1024 + 512 + 768 + 256  # mu_s 0.5 and its second mu_i, then the same of mu_s 0.9
    assert outcome.reached(4.25) == 1024 + 512
    assert outcome.reached(1.0) == float("inf")


def test_a_record_is_what_the_sweep_found(tmp_path: Path) -> None:
    """Two runs as a sweep stores them."""
    folder = tmp_path / "sweep"
    small = NetworkConfig(name="mlp_8x8", options={"width": 16, "blocks": 1, "embedding": 16})
    teacher = TeacherConfig(network=small, training=DenoisingConfig(samples=320, batch=16, lr=1e-3, ema=0.9))
    method = replace(BANKED.method, samples=960, batch=16, time_schedule=(8, 2, 1))
    base = RunConfig(teacher=teacher, method=method, evaluation=EvaluationConfig(samples=80, rung_samples=70))
    for number, mu_s in enumerate((0.5, 0.9)):
        run = base.replace_method(mu_s=mu_s)
        run_distillation(run, Paths(tmp_path, tmp_path / "cache"), folder / "trials" / f"trial-{number:04d}")
    (folder / "sweep.json").write_text(
        json.dumps({"config": json.loads((folder / "trials/trial-0000/config.json").read_text())["config"]})
    )
    assert record([folder], tmp_path / "record.json") == 2
    read = load(tmp_path / "record.json")
    assert read.run == base
    for number, mu_s in enumerate((0.5, 0.9)):
        (curve,) = read.curves[_key(base.replace_method(mu_s=mu_s))]
        result = json.loads((folder / f"trials/trial-{number:04d}/result.json").read_text())
        assert curve.final == pytest.approx(result["distance"], abs=1e-4)
        assert curve.own == pytest.approx(result["distances"]["0.5"], abs=1e-4)
        assert [samples for samples, _ in curve.points] == [240, 480, 720, 960]


RECORD = ROOT / "sweeps" / "records" / "mu_search_digits.json"


def test_the_recorded_grid_and_searches_of_it() -> None:
    """All 28 x 4 runs are there. With the images of 24 whole runs a sweep is as good as random search, and was so for
    40% of them; its best configuration is among the grid's best.
    """
    read = load(RECORD)
    assert len(read.curves) == 28
    assert {len(seeds) for seeds in read.curves.values()} == {4}
    space, _ = runpy.run_path(str(ROOT / "sweeps" / "mu_search.py"))["plan"](Options(samples="64k"))
    rows = compare(space, read, Search(trials=48), whole_runs=24, seeds=3)
    _, seeds = read.best()
    for row in rows:
        assert row["best"] <= row["random"]
        assert row["reached"] <= 0.4
        assert row["mean"] <= interval(seeds).high


def test_a_sweep_of_24_trials_costs_a_third() -> None:
    read = load(RECORD)
    space, _ = runpy.run_path(str(ROOT / "sweeps" / "mu_search.py"))["plan"](Options(samples="64k"))
    assert replay(space, read, Search(trials=24)).images <= 0.35 * 24 * 64_000
