"""The table at the end of a sweep, as it stands in a log."""

from __future__ import annotations

import io

from tract_ray.analysis.ledger import Ledger
from tract_ray.analysis.rows import TrialRow
from tract_ray.sweep.definition import SweepResult
from tract_ray.sweep.report import show_result
from tract_ray.terminal import make_console
from tract_ray.training import Score

LONG = (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)


def row(name: str, distance: float, parameters: int, status: str = "finished") -> TrialRow:
    changes = {"method.time_schedule": LONG}
    common = {"params": {}, "changes": changes, "samples": 1024, "parameters": parameters, "selection": distance - 0.25}
    return TrialRow(name=name, status=status, distance=distance, mu_i=0.5, **common)


def shown(*rows: TrialRow) -> list[str]:
    """The lines of the sweep's end."""
    stream = io.StringIO()
    reference = [Score("fid_digits", 32, 4000, 1.5), Score("fid_digits", 0, 1797, 0.75)]
    ledger = Ledger(naive=4096, trained=4096, stopped=0, shared=0, bank=0, device_seconds=1.0)
    show_result(SweepResult("sizes", list(rows), reference, "parent", [], ledger), make_console(stream))
    return [line.strip() for line in stream.getvalue().splitlines()]


def cells(lines: list[str], name: str) -> list[str]:
    return next(line.split() for line in lines if line.startswith(name))


def test_students_of_several_sizes_have_a_front() -> None:
    lines = shown(row("a", 3.0, 1000), row("b", 2.0, 5000), row("c", 3.5, 2000), row("d", 1.0, 9000, "stopped early"))
    assert cells(lines, "a")[2:] == ["1,000", "0.5", "1,024", "2.75", "3.00"]
    assert cells(lines, "d")[-1] == "stopped"
    assert Score("fid_digits", 18, 4000, 1.0, "heun", 35).label == "teacher, 18 heun steps (35 calls)"
    assert cells(lines, "teacher, 32 steps")[3:] == ["n=4000", "1.50"]
    assert "Pareto front of distance and parameters, the smallest student first: a, b" in lines


def test_students_of_one_size_have_none() -> None:
    lines = shown(row("a", 3.0, 1000), row("b", 2.0, 1000))
    assert cells(lines, "b")[2:] == ["0.5", "1,024", "1.75", "2.00"]
    assert "in the order of `selection`; `distance` is of noise that chose nothing" in lines
    assert not any("Pareto" in line or "1,000" in line for line in lines)


def test_a_log_has_room_for_long_settings() -> None:
    assert ",".join(map(str, LONG)) in cells(shown(row("a", 3.0, 1000)), "a")
