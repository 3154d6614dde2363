"""The ledger adds up, as it was and as it is foreseen."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from studies import BANKED, RUN, SHARING, SPACE, Driver

from tract_ray.analysis.ledger import Ledger, ledger_of, show_ledger
from tract_ray.analysis.rows import TrialRow
from tract_ray.search.space import rows
from tract_ray.search.study import Search
from tract_ray.sweep.definition import Sweep
from tract_ray.sweep.dry_run import drawn_runs, foresee
from tract_ray.training import Paths


def row(name: str, *seen: tuple[int, int], bank: int = 1) -> TrialRow:
    """A trial whose seeds saw and trained so many images."""
    costs = tuple({"samples": s, "trained": t, "device_seconds": t / 100} for s, t in seen)
    distances = {mu / 10: 1.0 for mu in range(bank)}
    return TrialRow(name, "finished", {}, {}, 1000, costs=costs, distances=distances)


def test_what_was_saved_and_what_was_trained() -> None:
    """Two seeds each: one stopped at 250, one found half of its images, one of other length."""
    found = [row("a", (1000, 1000), (1000, 1000), bank=4), row("b", (250, 250)), row("c", (2000, 1500), (2000, 2000))]
    ledger = ledger_of(found, 2, [1000, 1000, 2000], wall_seconds=30, slots=2)
    assert ledger.naive == 2 * (1000 + 1000 + 2000)
    assert ledger.trained == 2000 + 250 + 3500
    assert ledger.stopped == 2000 - 250
    assert ledger.shared == 500
    assert ledger.naive - ledger.stopped - ledger.shared == ledger.trained
    assert ledger.bank == 3 * 2 * 1000
    assert ledger.device_seconds == pytest.approx(57.5)
    assert ledger.fraction == pytest.approx(5750 / 8000)
    assert ledger.overhead == pytest.approx(30 / (57.5 / 2))
    assert ledger.metrics()["ledger/trained"] == 5750


def test_the_table_a_person_reads() -> None:
    out = io.StringIO()
    show_ledger(Ledger(8000, 5750, 1750, 500, 6000, 57.5, 30), Console(file=out, width=100))
    lines = [line.split() for line in out.getvalue().splitlines() if line.strip()]
    assert ["every", "row", "by", "itself", "8,000", "100%"] in lines
    assert ["not", "seen:", "stopped", "early", "-1,750", "-22%"] in lines
    assert ["trained", "5,750", "72%"] in lines
    assert "device time of the trials 0:57, 0:30 on the clock" in out.getvalue()


def sweep(tmp_path: Path, **changes: object) -> Sweep:
    base = Sweep(
        experiment="mu",
        question="?",
        space=SHARING,
        run=BANKED,
        name="x",
        search=Search(trials=4, pruner="none"),
        paths=Paths(tmp_path, tmp_path / "cache"),
        mlflow_uri="sqlite:///x.db",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_shared_stages_are_foreseen_exactly(tmp_path: Path) -> None:
    """Two values of mu_s times two of mu_i: two first phases, four second ones."""
    ours = sweep(tmp_path)
    runs = drawn_runs(ours)
    assert len(runs) == 4
    ledger = foresee(ours, runs)
    assert (ledger.naive, ledger.shared, ledger.trained) == (4 * 1024, 2 * 512, 3 * 1024)


def test_stopping_is_foreseen_by_its_share(tmp_path: Path) -> None:
    """One rung at 768 of 1,024 images: half of the trials see the last quarter."""
    search = Search(trials=6, pruner="halving", reduction=2, finish_anchors=True)
    ours = sweep(tmp_path, space=SPACE, run=RUN, search=search)
    ledger = foresee(ours, drawn_runs(ours))
    free = 768 + 256 / 2
    assert ledger.naive - ledger.stopped == round(2 * 1024 + 4 * free)
    open_to_all = replace(search, finish_anchors=False)
    ledger = foresee(sweep(tmp_path, space=SPACE, run=RUN, search=open_to_all), drawn_runs(ours))
    assert ledger.naive - ledger.stopped == round(6 * free)


def test_a_grid_is_foreseen_without_anchors(tmp_path: Path) -> None:
    """A sweep goes through its points in an order of its own: what is foreseen is what `open_study` will hand out."""
    search = Search(trials=4, sampler="grid", finish_anchors=True, seed=1)
    foreseen = drawn_runs(sweep(tmp_path, search=search))
    driver = Driver(tmp_path / "study.db", 4, 1, SHARING, BANKED, sampler="grid")
    assert foreseen == [driver.ask().run for _ in range(4)]
    ledger = foresee(sweep(tmp_path, search=search), foreseen)
    assert ledger.stopped > 0


def test_equal_rows_are_trained_once(tmp_path: Path) -> None:
    named = {"a": {"method.mu_s": 0.5}, "b": {"method.mu_s": 0.5}, "c": {"method.mu_s": 0.9}}
    search = Search(trials=3, repeats=2, pruner="none")
    ours = sweep(tmp_path, space=rows(named), run=RUN, search=search)
    ledger = foresee(ours, drawn_runs(ours))
    assert (ledger.naive, ledger.trained) == (6 * 1024, 4 * 1024)
