"""What is handed out when: stages that others train, further seeds, budgets, and the same after an interruption."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState
from ray.tune.utils.util import flatten_dict
from studies import BANKED, SHARING, Driver

from tract_ray.analysis.rows import read_rows
from tract_ray.cluster.tune_searcher import StudyScheduler
from tract_ray.config import InputError
from tract_ray.search.budget import Budget, parse_budget
from tract_ray.search.seeds import pooled
from tract_ray.search.space import rows
from tract_ray.training import Paths, RunConfig
from tract_ray.training.stage_store import StageStore


def finish_stage(store: StageStore, run: RunConfig, number: int) -> None:
    """As if the stage had been trained."""
    folder = store.path(store.stages_of(run)[number])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stage.json").write_text("{}")


def test_a_run_waits_for_the_stage_that_another_trains(tmp_path: Path) -> None:
    """The second configuration needs the first one's first phase: the third, of another mu_s, goes before it."""
    store = StageStore(Paths(tmp_path, tmp_path))
    driver = Driver(tmp_path / "study.db", trials=4, space=SHARING, run=BANKED, store=store)
    first, third = driver.ask(), driver.ask()
    assert (first.number, third.number) == (0, 2)
    assert driver.waits()  # the second and the fourth wait
    finish_stage(store, first.run, 0)
    second = driver.ask()
    assert second.number == 1
    assert driver.waits()
    driver.finish(third, 1.0)
    fourth = driver.ask()  # its stage is missing still, but nobody here trains it
    assert fourth.number == 3
    for asked in (first, second, fourth):
        driver.finish(asked, 1.0)
    assert driver.searcher.suggest("end") == "FINISHED"
    assert driver.states() == dict.fromkeys(range(4), TrialState.COMPLETE)


def test_repeats(tmp_path: Path) -> None:
    """Further seeds of a configuration follow its first one's end, and the study is told their mean."""
    driver = Driver(tmp_path / "study.db", trials=2, repeats=3)
    first = driver.ask()
    driver.finish(first, 3.0)
    assert driver.states()[0] == TrialState.RUNNING
    others = [driver.ask(), driver.ask()]
    assert [(other.number, other.repeat, other.run.seed) for other in others] == [(0, 1, 1), (0, 2, 2)]
    for other, distance in zip(others, (4.0, 8.0), strict=True):
        driver.finish(other, distance)
    assert driver.study.trials[0].value == 5.0
    second = driver.ask()
    assert (second.number, second.repeat) == (1, 0)


def test_the_sampler_is_told_what_the_row_is_chosen_by(tmp_path: Path) -> None:
    """One function makes both; the distances on fresh noise, which the row shows, choose nothing."""
    driver = Driver(tmp_path / "study.db", trials=1, repeats=2)
    seeds = []
    for bank, reported in (({"0.9": 1.0, "0.5": 2.5}, 1.2), ({"0.9": 6.0, "0.5": 3.0}, 3.1)):
        asked = driver.ask()
        seeds.append({**driver.result(1024, reported, finished=True), "distances": bank})
        driver.searcher.on_trial_complete(asked.name, flatten_dict(seeds[-1]))  # as Tune tells it
    row = pooled(seeds)
    assert row.mu_i == 0.5
    assert driver.study.trials[0].value == row.selection == 2.75


def test_as_many_at_once_as_the_cluster_has_now(tmp_path: Path) -> None:
    driver, room = Driver(tmp_path / "study.db", trials=4), [1]
    driver.searcher.limit = lambda: room[0]
    driver.ask()
    assert driver.waits()
    room[0] = 3  # two nodes joined
    driver.ask()
    driver.ask()
    assert driver.waits()


def test_a_stopped_trial_has_no_further_seeds(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "study.db", trials=1, repeats=2)
    only = driver.ask()
    driver.stop(only, 512, 9.0)
    assert driver.offered() is None
    assert driver.states() == {0: TrialState.PRUNED}


def test_a_seed_that_fails_fails_its_trial(tmp_path: Path) -> None:
    """Whatever becomes of those that run by then; others are not begun."""
    driver = Driver(tmp_path / "study.db", trials=1, repeats=5)
    driver.finish(driver.ask(), 3.0)
    second, third, fourth = (driver.ask() for _ in range(3))
    driver.searcher.on_trial_complete(second.name, {"failed": "loss is not finite at step 3 (lr 1e+09)"})
    assert driver.waits()
    driver.finish(third, 3.0)
    driver.stop(fourth, 512, 9.0)
    assert driver.searcher.suggest("end") == "FINISHED"
    assert driver.states() == {0: TrialState.FAIL}
    assert [cost["trained"] for cost in driver.study.trials[0].user_attrs["costs"].values()] == [1024, 1024, 512]


def test_a_resumed_driver_repeats_what_is_missing(tmp_path: Path) -> None:
    first = Driver(tmp_path / "study.db", trials=1, repeats=2)
    given = first.ask()
    first.finish(given, 3.0)
    first.ask()  # the second seed, never ended

    second = Driver(tmp_path / "study.db", trials=1, repeats=2)
    again = second.ask()
    second.finish(again, 3.0)  # from its result file, at once
    other = second.ask()
    assert (other.repeat, other.run.seed) == (1, 1)
    second.finish(other, 5.0)
    assert second.study.trials[0].value == 4.0
    account = second.searcher.account
    assert (account.total("trained"), account.total("device_seconds")) == (2048.0, 2.048)  # nothing is counted twice


def test_a_budget_of_images_is_never_exceeded(tmp_path: Path) -> None:
    """Whole runs are promised; what a stopped one or a shared stage leaves over goes to the next."""
    driver = Driver(tmp_path / "study.db", trials=20, budget=Budget(images=3 * 1024 + 100))
    first, second, third = driver.ask(), driver.ask(), driver.ask()
    assert driver.waits()  # something runs: it may leave something over
    driver.stop(third, 512, 9.0)
    assert driver.waits()
    driver.finish(first, 1.0, trained=512)
    fourth = driver.ask()
    driver.finish(second, 1.0)
    driver.finish(fourth, 1.0)
    assert driver.offered() is None
    assert driver.searcher.account.total("trained") == 512 + 512 + 1024 + 1024
    assert driver.states() == dict.fromkeys((0, 1, 3), TrialState.COMPLETE) | {
        2: TrialState.PRUNED,
        4: TrialState.RUNNING,  # drawn, and left for a larger budget: it has no row
    }
    assert len(read_rows(driver.study, tmp_path)) == 4


def test_a_budget_of_time_stops_what_runs(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "study.db", trials=20, budget=Budget(seconds=1.2), pruner="none")
    first, second = driver.ask(), driver.ask()
    assert not driver.report(first, 512, 5.0)
    driver.finish(first, 1.0)
    assert driver.report(second, 512, 5.0)
    driver.stop(second, 512, 5.0)
    assert driver.offered() is None
    assert driver.states() == {0: TrialState.COMPLETE, 1: TrialState.RUNNING}
    assert [row.status for row in read_rows(driver.study, tmp_path)] == ["finished", "cut short"]


def test_a_budget_of_time_stops_all_seeds_of_a_trial(tmp_path: Path) -> None:
    """One after the other, each at its next report."""
    driver = Driver(tmp_path / "study.db", trials=20, repeats=3, budget=Budget(seconds=1.5), pruner="none")
    driver.finish(driver.ask(), 1.0)
    for seed in (driver.ask(), driver.ask()):
        assert driver.report(seed, 512, 5.0)
        driver.stop(seed, 512, 5.0)
    assert driver.searcher.suggest("end") == "FINISHED"
    assert driver.states()[0] == TrialState.RUNNING
    assert driver.searcher.account.total("trained") == 1024 + 2 * 512


def test_budgets_as_they_are_written() -> None:
    assert parse_budget("3M", 1000) == Budget(images=3 << 20)
    assert parse_budget("640k", 1000) == Budget(images=640_000)
    assert parse_budget("1.5h", 1000) == Budget(seconds=5400)
    assert parse_budget("30m", 1000) == Budget(seconds=1800)
    with pytest.raises(InputError, match=r"^budget: 500 images are less than one trial's 1,000$"):
        parse_budget("500", 1000)
    with pytest.raises(InputError, match=r"^budget: 'much' is neither images"):
        parse_budget("much", 1000)


def test_a_list_of_rows_is_a_space(tmp_path: Path) -> None:
    named = {"published": {"method.mu_s": 0.5}, "slow": {"method.mu_s": 0.99}, "one": {"method.time_schedule": [8, 1]}}
    driver = Driver(tmp_path / "study.db", trials=3, space=rows(named), pruner="none")
    runs = [driver.ask().run for _ in range(3)]
    assert [run.method.mu_s for run in runs] == [0.5, 0.99, 0.5]  # type: ignore[attr-defined]
    assert runs[2].method.time_schedule == (8, 1)  # type: ignore[attr-defined]
    assert [trial.params["row"] for trial in driver.study.trials] == list(named)


def search(path: Path, interrupt: bool) -> list[float]:
    """Ten trials one after another, with a new driver for each if interrupted."""
    driver = Driver(path, trials=10, seed=3)
    while (given := driver.offered()) is not None:
        if interrupt:
            driver = Driver(path, trials=10, seed=3)  # the first one was killed before the trial ended
            given = driver.ask()
        rate = driver.study.trials[given.number].params["rate"]
        if not driver.report(given, 768, 5 * rate):
            driver.finish(given, 10 * rate)
        else:
            driver.stop(given, 768, 5 * rate)
    return [trial.params["rate"] for trial in driver.study.trials]


def test_an_interrupted_search_draws_what_it_would_have(tmp_path: Path) -> None:
    assert search(tmp_path / "a.db", interrupt=True) == search(tmp_path / "b.db", interrupt=False)


def test_a_trial_stops_at_the_rung_that_it_lost(tmp_path: Path) -> None:
    """Tune asks the scheduler before it tells the searcher: the decision needs the score that was just reported."""
    driver = Driver(tmp_path / "study.db", trials=4, finish_anchors=False)
    scheduler = StudyScheduler(driver.searcher)
    good, bad = driver.ask(), driver.ask()
    decisions = []
    for asked, distance in ((good, 5.0), (bad, 9.0)):
        result = driver.result(768, distance)
        decisions.append(scheduler.on_trial_result(None, SimpleNamespace(trial_id=asked.name), result))
        driver.searcher.on_trial_result(asked.name, result)
    assert decisions == ["CONTINUE", "STOP"]
    assert driver.searcher.account.total("trained") == 2 * 768
    assert driver.study.trials[1].intermediate_values == {1: 9.0}
