"""Failures have kinds: a configuration's is final, a machine's is not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState
from studies import Driver

from tract_ray.analysis.ledger import ledger_of
from tract_ray.analysis.rows import read_rows
from tract_ray.cluster import retries
from tract_ray.cluster.retries import Retries, node_to_avoid
from tract_ray.cluster.trial import NODE, configuration_error, program_error
from tract_ray.cluster.tune_searcher import StudyScheduler
from tract_ray.config import InputError, MachineFailed, RunFailed
from tract_ray.search.study import MACHINE

DIVERGED = "loss is not finite at step 3 (lr 1e+09)"


def test_a_configuration_fails_for_good(tmp_path: Path) -> None:
    """Its last report has no score; the study keeps the reason, and a resumed driver does not run it again."""
    driver = Driver(tmp_path / "study.db", trials=2)
    first, second = driver.ask(), driver.ask()
    assert not driver.report(first, 768, 5.0)
    scheduler = StudyScheduler(driver.searcher)
    assert scheduler.on_trial_result(None, SimpleNamespace(trial_id=first.name), {"failed": DIVERGED}) == "CONTINUE"
    driver.searcher.on_trial_complete(first.name, {"failed": DIVERGED})
    driver.finish(second, 4.0)
    assert driver.states() == {0: TrialState.FAIL, 1: TrialState.COMPLETE}
    assert driver.study.trials[0].user_attrs["failed"] == DIVERGED
    row = read_rows(driver.study, tmp_path)[0]
    assert (row.status, row.reason, row.samples) == ("failed", DIVERGED, 768)
    again = Driver(tmp_path / "study.db", trials=2)
    assert again.searcher.todo() == 0
    for account in (driver.searcher.account, again.searcher.account):
        ledger = ledger_of(account)
        assert (ledger.naive, ledger.trained, ledger.stopped, ledger.failed) == (2048, 1792, 0, 256)


def test_what_a_machine_failed_is_taken_up_again(tmp_path: Path) -> None:
    """By the next driver, after it was shown as failed; with the number and the values that it had."""
    driver = Driver(tmp_path / "study.db", trials=2)
    first, second = driver.ask(), driver.ask()
    assert not driver.report(first, 768, 5.0)
    driver.searcher.on_trial_complete(first.name, None, error=True)
    driver.finish(second, 4.0)
    assert driver.searcher.suggest("end") == "FINISHED"
    assert driver.ended[0] == (0, TrialState.FAIL)
    assert driver.states() == {0: TrialState.RUNNING, 1: TrialState.COMPLETE}
    row = read_rows(driver.study, tmp_path)[0]
    assert (row.status, row.reason) == ("failed", MACHINE)
    ledger = ledger_of(driver.searcher.account)
    assert (ledger.stopped, ledger.failed) == (0, 256)

    resumed = Driver(tmp_path / "study.db", trials=2)
    assert resumed.searcher.todo() == 1
    again = resumed.ask()
    assert (again.number, again.run) == (first.number, first.run)
    assert read_rows(resumed.study, tmp_path)[0].status == "running"
    resumed.finish(again, 3.0)
    assert resumed.states() == {0: TrialState.COMPLETE, 1: TrialState.COMPLETE}
    ledger = ledger_of(resumed.searcher.account)
    assert (ledger.trained, ledger.stopped, ledger.failed) == (2048, 0, 0)


def test_a_machines_failure_waits_longer_each_time_and_avoids_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays the same run, which holds no place meanwhile; after the last retry it is left for `--resume`."""
    now = [1000.0]
    monkeypatch.setattr(retries.time, "monotonic", lambda: now[0])
    driver, waited = Driver(tmp_path / "study.db", trials=1), list[float]()
    searcher = driver.searcher
    searcher.retries, searcher.avoid = Retries(3), lambda address: f"node at {address}"
    searcher.on_retry, searcher.limit = lambda job, seconds: waited.append(seconds), lambda: 1
    config = searcher.suggest("tune-0")
    for retry in range(1, 4):
        trial = SimpleNamespace(trial_id=f"tune-{retry - 1}", node_ip=f"10.0.0.{retry}")
        StudyScheduler(searcher).on_trial_error(None, trial)
        searcher.on_trial_complete(trial.trial_id, None, error=True)
        assert searcher.suggest(f"tune-{retry}") is None
        now[0] += waited[-1]
        assert searcher.suggest(f"tune-{retry}") == {**config, "avoid": f"node at 10.0.0.{retry}"}
    assert waited == [1, 2, 4]
    assert not driver.ended
    searcher.on_trial_complete("tune-3", None, error=True)
    assert driver.ended == [(0, TrialState.FAIL)]
    assert searcher.suggest("end") == "FINISHED"
    assert [retries.wait_before(n) for n in (1, 6, 7, 1000)] == [1, 32, 60, 60]


def test_a_trial_says_where_it_runs_before_it_reports(tmp_path: Path) -> None:
    searcher = Driver(tmp_path / "study.db", trials=1).searcher
    (tmp_path / "trial-0000").mkdir()
    trial = SimpleNamespace(trial_id="t", node_ip=None, config={"folder": str(tmp_path), "name": "trial-0000"})
    for said in ("", "10.0.0.7"):
        (tmp_path / "trial-0000" / NODE).write_text(said) if said else None
        StudyScheduler(searcher).on_trial_error(None, trial)
        assert searcher.failed_at["t"] == said


def test_a_node_is_avoided_where_there_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def node(name: str, cpus: int, alive: bool = True) -> dict[str, Any]:
        return {"NodeID": name, "NodeManagerAddress": f"10.0.0.{name}", "Alive": alive, "Resources": {"CPU": cpus}}

    nodes = [node("1", 2), node("2", 4), node("3", 4, alive=False)]
    monkeypatch.setattr(retries.ray, "nodes", lambda: nodes)
    assert node_to_avoid("10.0.0.1", 4, 0) == "1"
    assert node_to_avoid("10.0.0.2", 4, 0) == ""  # the first one is too small
    assert node_to_avoid("10.0.0.2", 2, 0) == "2"
    assert node_to_avoid("10.0.0.2", 2, 1) == ""
    assert node_to_avoid("10.0.0.3", 2, 0) == ""  # it is gone, and takes nothing
    assert node_to_avoid("", 2, 0) == ""


def test_an_error_of_the_program_is_not_repeated_before_somebody_has_mended_it(tmp_path: Path) -> None:
    reason = program_error(KeyError("no such layer"))
    assert reason == "KeyError: 'no such layer'; --resume tries it again"
    driver = Driver(tmp_path / "study.db", trials=1, repeats=2)
    driver.searcher.retries = Retries(3)
    driver.finish(driver.ask(), 3.0)
    driver.searcher.on_trial_complete(driver.ask().name, {"failed": reason})
    assert driver.searcher.suggest("end") == "FINISHED"
    assert driver.states() == {0: TrialState.RUNNING}
    assert read_rows(driver.study, tmp_path)[0].reason == reason
    resumed = Driver(tmp_path / "study.db", trials=1, repeats=2)
    assert resumed.searcher.todo() == 1


def test_a_diverged_seed_is_final_whatever_its_machine_does(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "study.db", trials=1, repeats=3)
    driver.finish(driver.ask(), 3.0)
    second, third = driver.ask(), driver.ask()
    driver.searcher.on_trial_complete(second.name, {"failed": DIVERGED})
    driver.searcher.on_trial_complete(third.name, None, error=True)
    assert driver.states() == {0: TrialState.FAIL}
    assert driver.study.trials[0].user_attrs["failed"] == DIVERGED


def test_kinds_of_errors() -> None:
    """A worker's own error reaches the trial inside errors of Ray's."""
    assert configuration_error(RunFailed(DIVERGED)) == DIVERGED
    assert configuration_error(InputError("batch: too large")) == "batch: too large"
    assert configuration_error(OSError(28, "No space left on device")) is None
    group = RuntimeError("2 of 2 workers failed")
    group.worker_failures = {0: OSError("connection reset"), 1: RunFailed(DIVERGED)}  # type: ignore[attr-defined]
    assert configuration_error(group) == DIVERGED
    assert program_error(group) is None
    group.worker_failures = {0: OSError("connection reset"), 1: TypeError("no\nlines")}  # type: ignore[attr-defined]
    assert configuration_error(group) is None
    assert program_error(group) == "TypeError: no; --resume tries it again"
    for machine in (OSError(28, "No space left on device"), RuntimeError("CUDA error"), MachineFailed("memory: no")):
        assert configuration_error(machine) is program_error(machine) is None


@pytest.mark.parametrize(
    "change",
    [
        "trial_values SET value = value + 1",
        "trial_params SET param_value = param_value * 1.01 WHERE trial_id = 1",
        "trial_params SET param_value = param_value * 1.01 WHERE trial_id = 2",
        "trial_user_attributes SET value_json = replace(value_json, '1024', '1025')",
    ],
)
def test_a_study_that_was_changed_is_one_line(tmp_path: Path, change: str) -> None:
    """A database has no checksums: a trial that ended or runs says itself what it holds."""
    driver = Driver(tmp_path / "study.db", trials=2)
    driver.finish(driver.ask(), 4.0)
    driver.ask()
    Driver(tmp_path / "study.db", trials=2)
    with closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        assert database.execute(f"UPDATE {change}").rowcount
    with pytest.raises(
        InputError, match=r"^storage: .*study.db holds no readable study .*not what was written"
    ) as caught:
        Driver(tmp_path / "study.db", trials=2)
    assert "begin a sweep of another name" in str(caught.value)
