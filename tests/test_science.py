"""One seed of `make science`, shortened: the same code and the same bounds."""

from __future__ import annotations

from pathlib import Path

from tract_ray.science import Claim, check, run_science, study
from tract_ray.training import Paths


def test_the_papers_findings_on_digits(tmp_path: Path) -> None:
    base = study(samples=1200 * 64, teacher_samples=1500 * 256, evaluation_samples=4000)
    distances, claims, one_step = run_science(base, Paths.at(tmp_path), [0], lambda text: None, processes=2)
    assert all(len(values) == 1 for values in distances.values())
    assert one_step > 50
    for claim in claims:
        assert claim.holds, (claim, distances, one_step)


def test_a_claim_can_fail() -> None:
    distances = {"TRACT 1024,32,1": [8.0, 12.0], "mu_s 0.99": [17.0, 17.0], "one phase 1024,1": [21.0, 21.0]}
    student, average, phases = check(one_step=100.0, distances=distances)
    assert (student.ratio, average.ratio, phases.ratio) == (0.1, 1.7, 2.1)
    assert (student.holds, average.holds, phases.holds) == (False, False, True)
    assert Claim("", 0.08, 0.08, at_most=True).holds
