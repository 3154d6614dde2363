"""The study is the sweep's memory: anchors, early stopping, what a resumed driver asks. No Ray."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from studies import RUN, RUNGS, SPACE, Driver

from tract_ray.analysis.rows import finished, read_rows
from tract_ray.config import InputError
from tract_ray.search.study import Search, open_study, rungs


def test_anchors_are_first_and_are_what_was_given(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "study.db")
    asked = [driver.ask() for _ in range(3)]
    runs = [given.run for given in asked]
    assert [run.method.mu_s for run in runs[:2]] == [0.5, 0.0]  # type: ignore[attr-defined]
    assert 0 < runs[2].method.mu_s < 0.999  # type: ignore[attr-defined]
    assert [given.number for given in asked] == driver.started == [0, 1, 2]
    assert {run.method.samples for run in runs} == {1024}


def test_a_sweep_of_fewer_trials_than_anchors(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "study.db", trials=1)
    first = driver.ask()
    assert driver.offered() is None
    driver.finish(first, 1.0)
    assert driver.offered() is None
    assert driver.states() == {0: TrialState.COMPLETE}


def test_trials_compete_in_the_last_phase() -> None:
    """Marks are at 256, 512, 768 and 1024 images; those of phase 1 tell nothing."""
    assert rungs(RUN, 9) == RUNGS
    assert rungs(RUN, 1) == RUNGS[:1]


def test_trials_compete_at_as_many_marks_as_asked(tmp_path: Path) -> None:
    """By default at the first mark only: who is worse later on goes on."""
    driver = Driver(tmp_path / "study.db", rungs=Search.rungs, finish_anchors=False)
    asked = [driver.ask() for _ in range(4)]
    assert [driver.report(given, RUNGS[0], 10.0 - k) for k, given in enumerate(asked)] == [False] * 4
    assert [driver.report(given, RUNGS[1], 10.0 + k) for k, given in enumerate(asked)] == [False] * 4
    assert driver.study.trials[3].intermediate_values == {1: 7.0}


def test_successive_halving(tmp_path: Path) -> None:
    """The worse half of those that reached a rung is given up there; an anchor never is, however bad."""
    driver = Driver(tmp_path / "study.db")
    asked = [driver.ask() for _ in range(6)]
    for given in asked:
        assert not driver.report(given, 256, 1e6)  # no rung
    scores = [50.0, 90.0, 10.0, 40.0, 45.0, 20.0]
    stopped = [driver.report(given, RUNGS[0], score) for given, score in zip(asked, scores, strict=True)]
    # In the order of arrival: best halves of {50}, {50, 90}, {10, ..}, {10, 40, ..}: 2 of 5, 3 of 6 go on.
    assert stopped == [False, False, False, False, True, False]
    for given, was_stopped, score in zip(asked, stopped, scores, strict=True):
        if was_stopped:
            driver.stop(given, RUNGS[0], score)
        else:
            driver.finish(given, score / 2)
    assert driver.states() == {n: TrialState.PRUNED if n == 4 else TrialState.COMPLETE for n in range(6)}
    pruned = driver.study.trials[4]
    assert pruned.intermediate_values == {1: 45.0}
    assert pruned.user_attrs["costs"]["0"]["samples"] == RUNGS[0]
    assert driver.study.best_trial.number == 2
    assert [t.number for t in driver.study.best_trials] == [2]


def test_anchors_compete_and_stay(tmp_path: Path) -> None:
    """A bad anchor goes on; the others are measured against its score, too."""
    driver = Driver(tmp_path / "study.db")
    first, second, third, fourth = (driver.ask() for _ in range(4))
    assert not driver.report(first, RUNGS[0], 10.0)
    assert not driver.report(second, RUNGS[0], 99.0)
    assert driver.report(third, RUNGS[0], 30.0)
    assert not driver.report(fourth, RUNGS[0], 9.0)
    assert not driver.report(second, RUNGS[1], 98.0)
    assert not driver.report(second, RUNGS[1], 98.0)  # a restarted trial reports a rung again


def test_a_stopped_trial_is_not_finished(tmp_path: Path) -> None:
    """Its truncated score is no one's best, and its row says how far it came."""
    driver = Driver(tmp_path / "study.db")
    good, _, bad = (driver.ask() for _ in range(3))
    driver.finish(good, 5.0)
    driver.stop(bad, 512, 0.1)
    rows = read_rows(driver.study, tmp_path)
    assert [(r.status, r.distance, r.samples, r.anchor) for r in rows] == [
        ("finished", 5.0, 1024, True),
        ("running", None, 0, True),
        ("stopped early", None, 512, False),
    ]
    assert [r.name for r in finished(rows)] == ["trial-0000"]
    assert driver.study.best_value == 5.0


def test_an_error_is_a_failed_trial(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "study.db", trials=2)
    first, second = driver.ask(), driver.ask()
    driver.searcher.on_trial_complete(first.name, None, error=True)
    driver.report(second, 512, 3.0)
    driver.searcher.on_trial_complete(second.name, {"samples": 512, "distance": 3.0, "finished": False}, error=True)
    assert driver.ended == [(0, TrialState.FAIL), (1, TrialState.FAIL)]
    assert driver.offered() is None
    assert finished(read_rows(driver.study, tmp_path)) == []


def test_resume_hands_out_the_unfinished_first(tmp_path: Path) -> None:
    """Same numbers, same changes, and as many trials as asked; finished ones are left alone."""
    first = Driver(tmp_path / "study.db", trials=6)
    before = [first.ask() for _ in range(4)]
    first.finish(before[0], 1.0)
    first.report(before[2], RUNGS[0], 7.0)
    changes = [trial.user_attrs["changes"] for trial in first.study.trials]

    second = Driver(tmp_path / "study.db", trials=6)
    again = []
    while (given := second.offered()) is not None:
        again.append(given)
    assert [given.number for given in again] == [1, 2, 3, 4, 5]
    assert [given.run for given in again[:3]] == [given.run for given in before[1:]]
    for given in again:
        second.finish(given, 2.0)
    assert second.states() == dict.fromkeys(range(6), TrialState.COMPLETE)
    assert [trial.user_attrs["changes"] for trial in second.study.trials[:4]] == changes
    assert second.study.trials[2].intermediate_values[1] == 7.0
    assert second.study.trials[0].value == 1.0

    third = Driver(tmp_path / "study.db", trials=6)
    assert third.offered() is None
    more = Driver(tmp_path / "study.db", trials=8)
    assert [more.ask().number, more.ask().number] == [6, 7]
    assert more.offered() is None


def test_a_trial_that_broke_off_before_it_had_a_configuration(tmp_path: Path) -> None:
    """The driver died between asking and drawing; were the trial given up, an anchor would be lost."""
    Driver(tmp_path / "study.db", trials=3).study.ask()
    resumed = Driver(tmp_path / "study.db", trials=3)
    asked = [resumed.ask() for _ in range(3)]
    assert [given.number for given in asked] == [0, 1, 2]
    assert [given.run.method.mu_s for given in asked[:2]] == [0.5, 0.0]  # type: ignore[attr-defined]
    assert resumed.offered() is None


def run_search(path: Path, seed: int, stop_at: int | None = None, trials: int = 10) -> list[float]:
    """A search for the rate 10^-1.5; the rates it tried."""
    driver = Driver(path, trials=trials, seed=seed)
    while (given := driver.offered()) is not None:
        rate = driver.study.trials[given.number].params["rate"]
        driver.finish(given, 1 + (math.log10(rate) + 1.5) ** 2)
        if stop_at is not None and given.number == stop_at:
            break
    return [trial.params["rate"] for trial in driver.study.trials]


def test_the_search_is_a_function_of_its_seed(tmp_path: Path) -> None:
    rates = run_search(tmp_path / "a.db", 7)
    assert run_search(tmp_path / "b.db", 7) == rates
    other = run_search(tmp_path / "c.db", 8)
    assert other[:2] == rates[:2] == [0.5, 1.0]
    assert not set(other[2:]) & set(rates[2:])


def test_a_resumed_search_draws_no_trial_twice(tmp_path: Path) -> None:
    """Seeded by how much is known: the second driver does not repeat the first one's random numbers."""
    first = run_search(tmp_path / "study.db", 7, stop_at=4)
    both = run_search(tmp_path / "study.db", 7)
    assert both[:5] == first
    assert len(set(both)) == len(both) == 10


def test_a_damaged_study(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("not a database, whatever its name says")
    with pytest.raises(InputError, match=r"^storage: .*study.db holds no readable study 'sweep' \("):
        open_study(tmp_path / "study.db", "sweep", SPACE, Search())


def test_a_study_of_another_sweep(tmp_path: Path) -> None:
    optuna.create_study(study_name="other", storage=f"sqlite:///{tmp_path / 'study.db'}")
    with pytest.raises(InputError, match=r"^storage: .*study.db holds no readable study 'sweep' \("):
        open_study(tmp_path / "study.db", "sweep", SPACE, Search())
