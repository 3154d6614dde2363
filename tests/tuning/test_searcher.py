"""What is handed out when: stages that others train, further seeds, budgets, and the same after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from studies import RUN, SPACE, Driver

from tract_ray.config import InputError, from_dict
from tract_ray.training import Paths, RunConfig
from tract_ray.training.stages import StageStore, stages_of
from tract_ray.tuning.budget import Budget, parse_budget
from tract_ray.tuning.searcher import StudyScheduler
from tract_ray.tuning.space import Space, rows

BANKED = RUN.replace_method(mu_i_bank=(0.5, 0.75), mu_i_bank_phases="all", mu_i=0.5)


def mu_i(trial: optuna.Trial) -> dict[str, Any]:
    """Runs that share their first phase, unless `mu_s` differs."""
    return {
        "method.mu_i": trial.suggest_categorical("mu_i", [0.5, 0.75]),
        "method.mu_s": trial.suggest_categorical("mu_s", [0.5, 0.9]),
    }


SHARING = Space(mu_i, tuple({"mu_i": i, "mu_s": s} for s in (0.5, 0.9) for i in (0.5, 0.75)))


def drawn(config: dict[str, Any]) -> RunConfig:
    return from_dict(RunConfig, json.loads(config["run"]))


def finish_stage(store: StageStore, run: RunConfig, number: int) -> None:
    """As if the stage had been trained."""
    folder = store.path(stages_of(run)[number])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stage.json").write_text("{}")


def test_a_run_waits_for_the_stage_that_another_trains(tmp_path: Path) -> None:
    """The second configuration needs the first one's first phase: the third, of another mu_s, goes before it."""
    store = StageStore(Paths(tmp_path, tmp_path))
    driver = Driver(tmp_path / "study.db", trials=4, space=SHARING, run=BANKED, store=store)
    first, third = driver.ask(), driver.ask()
    assert first is not None
    assert third is not None
    assert (first[1]["number"], third[1]["number"]) == (0, 2)
    assert driver.searcher.suggest("later") is None  # the second and the fourth wait
    finish_stage(store, drawn(first[1]), 0)
    second = driver.ask()
    assert second is not None
    assert second[1]["number"] == 1
    assert driver.searcher.suggest("later") is None
    driver.finish(third[0], 1.0)
    fourth = driver.ask()  # its stage is missing still, but nobody here trains it
    assert fourth is not None
    assert fourth[1]["number"] == 3
    for name in (first[0], second[0], fourth[0]):
        driver.finish(name, 1.0)
    assert driver.searcher.suggest("end") == "FINISHED"
    assert driver.states() == dict.fromkeys(range(4), TrialState.COMPLETE)


def test_repeats(tmp_path: Path) -> None:
    """Further seeds of a configuration follow its first one's end, and the study is told their mean."""
    driver = Driver(tmp_path / "study.db", trials=2, repeats=3)
    first = driver.ask()
    assert first is not None
    driver.finish(first[0], 3.0)
    assert driver.states()[0] == TrialState.RUNNING
    others = [driver.ask(), driver.ask()]
    assert [(o[1]["number"], o[1]["repeat"], drawn(o[1]).seed) for o in others if o] == [(0, 1, 1), (0, 2, 2)]
    for other, distance in zip(others, (4.0, 8.0), strict=True):
        assert other is not None
        driver.finish(other[0], distance)
    assert driver.study.trials[0].value == 5.0
    second = driver.ask()
    assert second is not None
    assert (second[1]["number"], second[1]["repeat"]) == (1, 0)


def test_a_stopped_trial_has_no_further_seeds(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "study.db", trials=1, repeats=2)
    only = driver.ask()
    assert only is not None
    driver.stop(only[0], 512, 9.0)
    assert driver.ask() is None
    assert driver.states() == {0: TrialState.PRUNED}


def test_a_seed_that_fails_fails_its_trial(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "study.db", trials=1, repeats=3)
    first = driver.ask()
    assert first is not None
    driver.finish(first[0], 3.0)
    second = driver.ask()
    assert second is not None
    driver.searcher.on_trial_complete(second[0], None, error=True)
    assert driver.ask() is None
    assert driver.states() == {0: TrialState.FAIL}


def test_a_resumed_driver_repeats_what_is_missing(tmp_path: Path) -> None:
    first = Driver(tmp_path / "study.db", trials=1, repeats=2)
    given = first.ask()
    assert given is not None
    first.finish(given[0], 3.0)
    assert first.ask() is not None  # the second seed, never ended

    second = Driver(tmp_path / "study.db", trials=1, repeats=2)
    again = second.ask()
    assert again is not None
    second.finish(again[0], 3.0)  # from its result file, at once
    other = second.ask()
    assert other is not None
    assert (other[1]["repeat"], drawn(other[1]).seed) == (1, 1)
    second.finish(other[0], 5.0)
    assert second.study.trials[0].value == 4.0
    assert second.searcher.spent == {"trained": 2048.0, "device_seconds": 2.048}  # nothing is counted twice


def test_a_budget_of_images_is_never_exceeded(tmp_path: Path) -> None:
    """Whole runs are promised; what a stopped one or a shared stage leaves over goes to the next."""
    driver = Driver(tmp_path / "study.db", trials=20, budget=Budget(images=3 * 1024 + 100))
    first, second, third = driver.ask(), driver.ask(), driver.ask()
    assert driver.searcher.suggest("later") is None  # something runs: it may leave something over
    assert first is not None
    assert second is not None
    assert third is not None
    driver.stop(third[0], 512, 9.0)
    assert driver.searcher.suggest("later") is None
    driver.finish(first[0], 1.0, trained=512)
    fourth = driver.ask()
    assert fourth is not None
    driver.finish(second[0], 1.0)
    driver.finish(fourth[0], 1.0)
    assert driver.ask() is None
    assert driver.searcher.spent["trained"] == 512 + 512 + 1024 + 1024
    assert len(driver.states()) == 4


def test_a_budget_of_time_stops_what_runs(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "study.db", trials=20, budget=Budget(seconds=1.2), pruner="none")
    first, second = driver.ask(), driver.ask()
    assert first is not None
    assert second is not None
    assert not driver.report(first[0], 512, 5.0)
    driver.finish(first[0], 1.0)
    assert driver.report(second[0], 512, 5.0)
    driver.stop(second[0], 512, 5.0)
    assert driver.ask() is None
    assert driver.states() == {0: TrialState.COMPLETE, 1: TrialState.PRUNED}


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
    runs = [drawn(given[1]) for given in (driver.ask(), driver.ask(), driver.ask()) if given]
    assert [run.method.mu_s for run in runs] == [0.5, 0.99, 0.5]  # type: ignore[attr-defined]
    assert runs[2].method.time_schedule == (8, 1)  # type: ignore[attr-defined]
    assert [trial.params["row"] for trial in driver.study.trials] == list(named)


def search(path: Path, interrupt: bool) -> list[float]:
    """Ten trials one after another, with a new driver for each if interrupted."""
    driver = Driver(path, trials=10, seed=3)
    while (given := driver.ask()) is not None:
        if interrupt:
            driver = Driver(path, trials=10, seed=3)  # the first one was killed before the trial ended
            given = driver.ask()
            assert given is not None
        rate = driver.study.trials[given[1]["number"]].params["rate"]
        if not driver.report(given[0], 768, 5 * rate):
            driver.finish(given[0], 10 * rate)
        else:
            driver.stop(given[0], 768, 5 * rate)
    assert SPACE.anchors
    return [trial.params["rate"] for trial in driver.study.trials]


def test_an_interrupted_search_draws_what_it_would_have(tmp_path: Path) -> None:
    assert search(tmp_path / "a.db", interrupt=True) == search(tmp_path / "b.db", interrupt=False)


def test_a_trial_stops_at_the_rung_that_it_lost(tmp_path: Path) -> None:
    """Tune asks the scheduler before it tells the searcher: the decision needs the score that was just reported."""
    driver = Driver(tmp_path / "study.db", trials=4, finish_anchors=False)
    scheduler = StudyScheduler(driver.searcher)
    good, bad = driver.ask(), driver.ask()
    assert good is not None
    assert bad is not None
    decisions = []
    for (name, _), distance in ((good, 5.0), (bad, 9.0)):
        result = {"samples": 768, "distance": distance, "finished": False, **driver.cost(768)}
        decisions.append(scheduler.on_trial_result(None, SimpleNamespace(trial_id=name), result))
        driver.searcher.on_trial_result(name, result)
    assert decisions == ["CONTINUE", "STOP"]
    assert driver.searcher.spent["trained"] == 2 * 768
    assert driver.study.trials[1].intermediate_values == {1: 9.0}
