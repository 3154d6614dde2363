"""The ledger adds up, as it was and as it is foreseen."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from studies import BANKED, RUN, SHARING, SPACE, Driver

from tract_ray.analysis.ledger import Ledger, banked, ledger_of, show_ledger
from tract_ray.search.account import Account, Entry
from tract_ray.search.budget import Budget
from tract_ray.search.space import apply_changes, rows
from tract_ray.search.study import Search
from tract_ray.sweep.definition import Sweep
from tract_ray.sweep.dry_run import foresee, rehearse
from tract_ray.training import Paths


def account(*runs: tuple[int, int, int, int, int]) -> Account:
    """Runs by trial and seed: their images, those seen and those trained."""
    kept = Account()
    for trial, repeat, whole, seen, trained in runs:
        cost = {"samples": float(seen), "trained": float(trained), "device_seconds": trained / 100}
        kept.entries[trial, repeat] = Entry({"stage": whole}, whole, cost)
    return kept


def test_what_was_saved_and_what_was_trained() -> None:
    """Two seeds each: one stopped at 250, one found half of its images, one of other length."""
    found = account(
        *((0, 0, 1000, 1000, 1000), (0, 1, 1000, 1000, 1000), (1, 0, 1000, 250, 250), (1, 1, 1000, 0, 0)),
        *((2, 0, 2000, 2000, 1500), (2, 1, 2000, 2000, 2000)),
    )
    ledger = ledger_of(found, banked(found, {0: 4}), wall_seconds=30, slots=2)
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
    ledger = foresee(sweep(tmp_path))
    assert (ledger.naive, ledger.shared, ledger.trained) == (4 * 1024, 2 * 512, 3 * 1024)


def test_further_seeds_of_stopped_trials_are_not_foreseen(tmp_path: Path) -> None:
    """Of many trials halving keeps half at the rung, 768 of 1,024 images, and a second seed follows those alone."""
    search = Search(trials=30, repeats=2, sampler="random", pruner="halving", reduction=2)
    ledger = foresee(sweep(tmp_path, space=SPACE, run=RUN, search=search))
    assert ledger.naive == 60 * 1024
    kept = (ledger.trained / 30 - 768) / (256 + 1024)
    assert kept == pytest.approx(0.5, abs=0.12)
    assert ledger.trained / ledger.naive == pytest.approx((768 + 0.5 * (256 + 1024)) / 2048, abs=0.08)


def test_anchors_are_foreseen_whole(tmp_path: Path) -> None:
    search = Search(trials=2, pruner="halving", reduction=2, finish_anchors=True)
    assert foresee(sweep(tmp_path, space=SPACE, run=RUN, search=search)).stopped == 0


def test_a_budget_is_foreseen(tmp_path: Path) -> None:
    """Three runs of 1,024 fit with all their seeds, a fourth does not."""
    search = Search(trials=6, repeats=1, pruner="none", budget=Budget(images=4000))
    assert foresee(sweep(tmp_path, space=SPACE, run=RUN, search=search)).trained == 3 * 1024


def test_a_grid_is_foreseen_without_anchors(tmp_path: Path) -> None:
    """A sweep goes through its points in an order of its own: what is foreseen is what `open_study` will hand out."""
    search = Search(trials=4, sampler="grid", finish_anchors=True, seed=1)
    study = rehearse(sweep(tmp_path, search=search)).study
    driver = Driver(tmp_path / "study.db", 4, 1, SHARING, BANKED, sampler="grid")
    asked = [driver.ask().run for _ in range(4)]
    assert [apply_changes(BANKED, trial.user_attrs["changes"]) for trial in study.trials] == asked
    assert foresee(sweep(tmp_path, search=search)).stopped > 0


def test_equal_rows_are_trained_once(tmp_path: Path) -> None:
    named = {"a": {"method.mu_s": 0.5}, "b": {"method.mu_s": 0.5}, "c": {"method.mu_s": 0.9}}
    search = Search(trials=3, repeats=2, pruner="none")
    ledger = foresee(sweep(tmp_path, space=rows(named), run=RUN, search=search))
    assert (ledger.naive, ledger.trained) == (6 * 1024, 4 * 1024)
