"""Failures have kinds: a configuration's is final, a machine's is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from optuna.trial import TrialState
from studies import Driver

from tract_ray.analysis.ledger import ledger_of
from tract_ray.analysis.rows import read_rows
from tract_ray.cluster.trial import configuration_error
from tract_ray.cluster.tune_searcher import StudyScheduler
from tract_ray.config import InputError, RunFailed
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
