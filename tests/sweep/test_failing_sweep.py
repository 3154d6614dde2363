"""A sweep of which trials fail, on a local Ray: by their configuration for good, by their machine until `--resume`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import TrialState
from services import end, start, wait_until
from sweeps_for_tests import SMALL, call

from tract_ray.cluster.local_ray import AUTHENTICATION
from tract_ray.tracking import MlflowStore

pytestmark = [pytest.mark.cluster, pytest.mark.faults]

SCRIPT = '''"""Which learning rate is too large?"""

from tract_ray.cli.sweep_script import sweep_command
from tract_ray.search.space import rows

def plan(options):
    return rows({"usual": {"method.lr": 1e-3}, "absurd": {"method.lr": 1e9}}), options.run()

if __name__ == "__main__":
    sweep_command("rates", __doc__, plan, trials=2, pruner="none")
'''


def check_apart(driver: psutil.Process, home: Path) -> None:
    """Nothing of the driver's Ray can be reached from another machine, and its token is in no file of the home."""
    listening = {}
    for process in (driver, *driver.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            places = [c.laddr for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
            listening[process.name()] = {place.ip.removeprefix("::ffff:") for place in places}
    assert listening["gcs_server"]
    assert set().union(*listening.values()) <= {"127.0.0.1", "::1"}, listening
    assert not (home / ".ray").exists()


def test_what_diverges_is_final_and_what_is_killed_goes_on(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, storage = tmp_path / "rates.py", tmp_path / "runs"
    script.write_text(SCRIPT)
    store = MlflowStore(f"sqlite:///{tmp_path}/mlflow.db", "rates")
    where = ["--storage", storage, "--mlflow-uri", store.uri, "--ray-address", "local", "--name", "two"]
    options = [*SMALL.split(), *where, "--concurrency", "1"]
    folder, log = storage / "sweeps" / "two", tmp_path / "first.log"
    with monkeypatch.context() as patch:
        for name in AUTHENTICATION:
            patch.delenv(name, raising=False)
        driver = start(
            [sys.executable, script, *options, "--retries", "0", "--samples", "4096"],
            log,
            env={"TRACT_RAY_CACHE": str(cache), "HOME": str(tmp_path / "home")},
        )
    try:
        wait_until((folder / "trials" / "trial-0000" / "record.jsonl").exists, "no trial", 240, log)
        check_apart(psutil.Process(driver.pid), tmp_path / "home")
        for process in psutil.Process(driver.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any("ImplicitFunc" in part for part in process.cmdline()):
                    process.kill()
        assert driver.wait(240) == 1, log.read_text()
    finally:
        end(driver, at_once=True)
    said = log.read_text()
    assert "usual failed: its machine failed; --resume tries it again" in said
    assert "error: 2 of 2 trials failed; trial-0000: its worker died; --resume tries it again" in said
    assert "stopped early" not in said.replace("not seen: stopped early", "")

    called = call(*options, "--samples", "4096", "--resume", script=script, cache=cache)
    assert called.status == 1, called
    assert "absurd failed: loss is not finite at step" in called.out
    assert called.err.startswith("error: 1 of 2 trials failed; trial-0001: loss is not finite at step"), called.err
    assert called.err.count("\n") == 1
    study = optuna.load_study(study_name="two", storage=f"sqlite:///{folder / 'study.db'}")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]
    assert study.trials[1].user_attrs["failed"].startswith("loss is not finite at step")
    assert json.loads((folder / "summary.json").read_text())["trials"][1]["reason"]
    runs = store.client.search_runs([store.experiment_id], "tags.`tract_ray.status` = 'failed'")
    assert [run.data.tags["tract_ray.reason"] for run in runs] == [study.trials[1].user_attrs["failed"]]
