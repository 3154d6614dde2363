"""One seed of `make science`, shortened: the same code and the same bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tract_ray.benchmarks.choices import CHOICES, OURS, choice_arms
from tract_ray.benchmarks.science import (
    Claim,
    measure,
    method_arms,
    method_claims,
    references_of,
    run_arms,
    tract_arms,
    tract_claims,
)
from tract_ray.training import EvaluationConfig, Paths
from tract_ray.training.recipes import recipes, teacher_recipe


@pytest.mark.slow
def test_the_papers_findings_on_digits(tmp_path: Path) -> None:
    teacher = teacher_recipe("digits", samples=4000 * 128)
    arms = tract_arms(teacher, samples=900 * 64, seeds=[0])
    found = run_arms(arms, references_of("tract", arms), Paths.at(tmp_path), lambda text: None, processes=2)
    assert all(len(values) == 1 for values in found.values())
    for claim in tract_claims({name: values[0] for name, values in found.items()}):
        assert claim.holds, (claim, found)


@pytest.mark.usefixtures("short_classifier")
def test_a_run_is_measured_once(tmp_path: Path) -> None:
    """By its own average, in a folder named by its seed and settings; then it is found again."""
    teacher, paths = teacher_recipe("digits", "mlp_8x8_small", samples=10 * 128), Paths.at(tmp_path)
    run, _ = tract_arms(teacher, samples=4 * 64, seeds=[0])["mu_s 0.99"]
    run = replace(run, evaluation=EvaluationConfig(samples=60, per_phase=1, rung_samples=60))
    first = measure("mu_s 0.99", 1, run, paths)
    assert first[:2] == ("mu_s 0.99", 1)
    assert first[2] > 0
    (folder,) = (tmp_path / "science").iterdir()
    before = (folder / "record.jsonl").read_bytes()
    assert measure("mu_s 0.99", 1, run, paths) == first
    assert (folder / "record.jsonl").read_bytes() == before


def test_the_choices_are_the_recipes() -> None:
    """All together are what `tract-cifar10` chooses; each alone differs from ours in what it is named for."""
    arms = {name: run.method for name, (run, _) in choice_arms(teacher_recipe("digits"), [0]).items()}
    ours, everything = ({name: getattr(arms[arm], name) for name in OURS} for arm in ("ours", "all, as the authors"))
    assert ours == OURS
    assert everything == {name: getattr(recipes["tract-cifar10"].method, name) for name in OURS}
    for name, choice in CHOICES.items():
        assert arms[name] == replace(arms["ours"], **choice)


def test_a_claim_can_fail() -> None:
    means = {"TRACT 1024,32,1": 10.0, "mu_s 0.99": 17.0, "one phase 1024,1": 21.0, "teacher, 1 step": 100.0}
    student, average, phases = tract_claims(means)
    assert (student.ratio, average.ratio, phases.ratio) == (0.1, 1.7, 2.1)
    assert (student.holds, average.holds, phases.holds) == (False, False, True)
    assert Claim("", 0.08, 0.08, at_most=True).holds


def test_the_methods_claims_are_about_what_is_measured() -> None:
    arms = method_arms([0])
    claims = method_claims(dict.fromkeys([*arms, *references_of("methods", arms)], 1.0))
    assert [claim.ratio for claim in claims] == [1.0] * 9
    assert [claim.bound is not None for claim in claims] == [True] * 5 + [False] * 4
    assert Claim("", 2.0).holds


def test_methods_are_compared_at_equal_samples_from_the_same_teacher() -> None:
    runs = {name: run for name, (run, _) in method_arms([0]).items()}
    together = [
        ["TRACT", "BTD", "BTD, annealed", "consistency", "regression", "regression, equal calls"],
        ["TRACT, twice as long", "moment matching, 1 step", "moment matching, 8 steps"],
    ]
    for names in together:
        assert len({(runs[name].method.samples, runs[name].teacher.training) for name in names}) == 1
    assert runs["KD: small from big"].method == runs["small from small"].method
    assert runs["KD: small from big"].student == runs["small from small"].teacher.network
    tract, btd = runs["TRACT"].method, runs["BTD"].method
    for setting in ("batch", "lr", "lr_decay", "clip_norm", "weighting", "mu_i", "mu_i_residual"):
        assert getattr(tract, setting) == getattr(btd, setting), setting
