"""Stages: what runs share is trained once, bit for bit, and found by whoever needs it."""

from __future__ import annotations

import json
import multiprocessing as mp
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import content_of, tiny_run, without_stages

from tract_ray.distillation import ProgressiveConfig, heuristic_mu
from tract_ray.training import EvaluationConfig, Paths, RunConfig, run_distillation
from tract_ray.training.stages import stages_of

BASE = tiny_run()
HALF = 480  # images of each of its two phases
LAST = heuristic_mu(1e-3, 30)


def keys(run: RunConfig) -> list[str]:
    return [stage.key for stage in stages_of(run)]


def test_a_key_changes_with_what_determines_the_weights() -> None:
    first, second = keys(BASE)
    assert first != second
    for run in (
        replace(BASE, seed=6),
        replace(BASE, teacher=replace(BASE.teacher, seed=1)),
        replace(BASE, student_from="random"),
        BASE.replace_method(mu_s=0.9),
        BASE.replace_method(lr=2e-3),
        BASE.replace_method(samples=960 * 2),
        BASE.replace_method(time_schedule=(8, 4, 1)),
    ):
        assert not set(keys(run)) & {first, second}


def test_a_key_does_not_change_with_what_comes_later() -> None:
    """Of two schedules the common beginning is common; the last phase's averages are its own affair."""
    first, second = keys(BASE)
    assert keys(BASE.replace_method(mu_i_bank=(0.5, 0.25)))[0] == first
    assert keys(BASE.replace_method(mu_i_bank=(0.5, 0.25)))[1] != second
    longer = BASE.replace_method(time_schedule=(8, 2, 1), phase_shares=(1, 3), samples=960 * 2)
    assert keys(longer)[0] == first
    assert keys(longer)[1] != second
    assert keys(replace(BASE, evaluation=EvaluationConfig(samples=90))) == [first, second]
    three = BASE.replace_method(time_schedule=(8, 2, 1), mu_i_bank=())
    assert keys(three)[0] == first


def test_mu_i_of_a_phase_matters_to_the_next_one_only() -> None:
    """With a bank in every phase, runs that differ in mu_i share their first phase."""
    banked = BASE.replace_method(mu_i_bank=(LAST, 0.5), mu_i_bank_phases="all")
    other = banked.replace_method(mu_i=0.5)
    assert keys(banked)[0] == keys(other)[0]
    assert keys(banked)[1] != keys(other)[1]


def test_halvings_share_their_beginning() -> None:
    def run(end: int, samples: int) -> RunConfig:
        method = ProgressiveConfig(start_steps=8, end_steps=end, samples=samples, batch=16, lr=1e-3)
        return replace(BASE, method=method)

    whole, part = keys(run(1, 960)), keys(run(2, 640))
    assert whole[:2] == part
    assert len(whole) == 3


@pytest.fixture(scope="module")
def cold(trained: Paths, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The second of two runs with a common first phase, trained by itself."""
    folder = tmp_path_factory.mktemp("cold")
    run_distillation(second_run(), without_stages(trained, folder / "paths"), folder / "run")
    return content_of(folder / "run")


def second_run() -> RunConfig:
    """Differs from `BASE` in its second phase: three times as long, another bank."""
    return BASE.replace_method(samples=960 * 2, phase_shares=(1, 3), mu_i_bank=(0.25,))


def test_a_reused_stage_is_the_stage(paths: Paths, tmp_path: Path, cold: dict[str, Any]) -> None:
    """Weights, scores, pictures and the record are those of a run that trained everything; the cost is less."""
    first = run_distillation(BASE, paths, tmp_path / "first")
    assert first.trained == first.samples == 2 * HALF
    reports: list[dict[str, Any]] = []
    second = run_distillation(second_run(), paths, tmp_path / "second", report=reports.append)
    warm = content_of(tmp_path / "second")
    assert (second.samples, second.trained) == (4 * HALF, 3 * HALF)
    for part in ("weights", "record", "pictures"):
        assert warm[part] == cold[part], part
    assert {**warm["result"], "trained": 4 * HALF} == cold["result"]
    assert [r["samples"] for r in reports] == [240, 480, 480 + 720, 480 + 1440]
    assert [r["trained"] for r in reports] == [0, 0, 720, 1440]


def test_a_run_that_was_trained_before_costs_nothing(paths: Paths, tmp_path: Path) -> None:
    """In another folder, as another sweep would ask for it; also where only the evaluation differs."""
    first = run_distillation(BASE, paths, tmp_path / "first")
    again = run_distillation(BASE, paths, tmp_path / "again")
    assert (again.trained, again.distances) == (0, first.distances)
    assert content_of(tmp_path / "again")["record"] == content_of(tmp_path / "first")["record"]
    assert content_of(tmp_path / "again")["weights"] == content_of(tmp_path / "first")["weights"]
    elsewhere = replace(BASE, evaluation=replace(BASE.evaluation, samples=90))
    scored = run_distillation(elsewhere, paths, tmp_path / "scored")
    assert scored.trained == 0
    assert scored.evaluation["samples"] == 90
    alone = run_distillation(elsewhere, paths, tmp_path / "alone", reuse=False)
    assert scored.distances == alone.distances


def test_another_mu_i_is_scored_from_the_same_training(paths: Paths, tmp_path: Path) -> None:
    banked = BASE.replace_method(mu_i_bank=(LAST, 0.5), mu_i_bank_phases="all")
    run_distillation(banked, paths, tmp_path / "first")
    other = banked.replace_method(mu_i=0.5)
    result = run_distillation(other, paths, tmp_path / "other")
    assert result.trained == HALF
    alone = run_distillation(other, paths, tmp_path / "alone", reuse=False)
    assert alone.trained == 2 * HALF
    assert result.distances == alone.distances
    scores = [line["samples"] for line in content_of(tmp_path / "other")["record"] if "mu_i_best" in str(line)]
    assert scores[0] == HALF  # the mark in the middle of the first phase is of another average


PATHS = {"lr_path": (1e-3, 2e-3, 5e-4, 1e-3), "mu_s_path": (0.5, 0.9, 0.25, 0.5)}


def test_parts_of_a_path_join_to_the_run(paths: Paths, tmp_path: Path) -> None:
    """Part after part, each in a run of its own that finds the earlier ones: bit for bit the run in one go."""
    whole = BASE.replace_method(**PATHS)
    for parts in (1, 2, 3, 4):
        result = run_distillation(replace(whole, parts=parts), paths, tmp_path / str(parts))
        assert (result.samples, result.trained) == (240 * parts, 240)
    alone = run_distillation(whole, paths, tmp_path / "alone", reuse=False)
    assert alone.trained == 960
    assert content_of(tmp_path / "4")["weights"] == content_of(tmp_path / "alone")["weights"]
    assert content_of(tmp_path / "4")["record"] == content_of(tmp_path / "alone")["record"]
    other = run_distillation(BASE, paths, tmp_path / "other", reuse=False)
    assert other.distances != alone.distances


def test_a_constant_path_is_no_path(paths: Paths, tmp_path: Path) -> None:
    lr, mu_s = BASE.method.lr, BASE.method.mu_s  # type: ignore[attr-defined]
    constant = BASE.replace_method(lr_path=(lr,) * 4, mu_s_path=(mu_s,) * 4)
    first = run_distillation(constant, paths, tmp_path / "path")
    assert first.distances == run_distillation(BASE, paths, tmp_path / "plain", reuse=False).distances


def train_in(paths: Paths, folder: Path, run: RunConfig) -> None:
    run_distillation(run, paths, folder)


def test_at_the_same_time_one_trains_and_the_other_waits(paths: Paths, tmp_path: Path) -> None:
    context = mp.get_context("spawn")
    folders = [tmp_path / str(number) for number in range(2)]
    processes = [context.Process(target=train_in, args=(paths, folder, BASE)) for folder in folders]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    assert sum(result["trained"] for result in results) == 2 * HALF
    assert results[0]["distances"] == results[1]["distances"]
