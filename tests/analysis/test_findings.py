"""The sentence at the end compares what can be compared."""

from __future__ import annotations

from tract_ray.analysis.findings import finding
from tract_ray.analysis.rows import TrialRow, finished


def row(name: str, parameters: int, *seeds: float) -> TrialRow:
    mean = sum(seeds) / len(seeds)
    changes = {"name": name}
    return TrialRow(name, "finished", {}, changes, 1024, mean, 0.5, seeds=seeds, parameters=parameters)


SIZES = finished([row("large", 5000, 1.0, 1.1), row("wide", 5000, 2.0, 2.1), row("small", 1000, 3.0, 3.1)])


def test_one_objective_compares_the_two_best() -> None:
    assert finding(SIZES, costly=False).startswith("large (1.05 ± 0.64) and wide (2.05 ± 0.64) differ: p = ")


def test_students_of_other_sizes_are_not_compared() -> None:
    text = finding(SIZES, costly=True)
    assert text.startswith("of 5,000 parameters, large (1.05 ± 0.64) and wide (2.05 ± 0.64) differ: p = ")
    assert text.endswith("; small: no other has as many parameters, so its distance is compared with none")


def test_nothing_to_compare() -> None:
    alone = finding(finished([row("large", 5000, 1.0), row("small", 1000, 3.0)]), costly=True)
    assert alone == "small, large: no other has as many parameters, so its distance is compared with none"
    assert finding([], costly=True) == ""
