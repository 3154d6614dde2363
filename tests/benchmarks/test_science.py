"""One seed of `make science`, shortened: the same code and the same bounds."""

from __future__ import annotations

from pathlib import Path

from tract_ray.benchmarks.science import (
    Claim,
    method_arms,
    method_claims,
    references_of,
    run_arms,
    tract_arms,
    tract_claims,
)
from tract_ray.training import Paths
from tract_ray.training.recipes import teacher_recipe


def test_the_papers_findings_on_digits(tmp_path: Path) -> None:
    teacher = teacher_recipe("digits", samples=4000 * 128)
    arms = tract_arms(teacher, samples=900 * 64, seeds=[0])
    found = run_arms(arms, references_of("tract", arms), Paths.at(tmp_path), lambda text: None, processes=2)
    assert all(len(values) == 1 for values in found.values())
    for claim in tract_claims({name: values[0] for name, values in found.items()}):
        assert claim.holds, (claim, found)


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
    assert [claim.bound is not None for claim in claims] == [True] * 6 + [False] * 3
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
