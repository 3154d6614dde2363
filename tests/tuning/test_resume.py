"""A sweep that is killed, resumed, interrupted and resumed again is the sweep that was not. On a local Ray."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from services import MlflowServer, wait_until
from sweeps_for_tests import SMALL, begin, call, lines_of, points_of

from tract_ray.tracking import MlflowStore

pytestmark = pytest.mark.cluster


@dataclass
class Sweeping:
    """The sweep as its user types it, again and again."""

    storage: Path
    cache: Path
    uri: str

    @property
    def options(self) -> list[str]:
        where = ["--storage", str(self.storage), "--mlflow-uri", self.uri, "--ray-address", "local"]
        return [*SMALL.split(), *where, "--name", "killed", "--trials", "3", "--concurrency", "1"]

    def begin(self, log: str, *more: str) -> subprocess.Popen[bytes]:
        return begin(self.log(log), self.cache, *self.options, *more)

    def log(self, name: str) -> Path:
        return self.storage / f"{name}.log"

    @property
    def folder(self) -> Path:
        return self.storage / "sweeps" / "killed"

    def trial(self, number: int) -> Path:
        return self.folder / "trials" / f"trial-{number:04d}"

    def content(self, number: int) -> dict[str, object]:
        """What must not change when a trial is finished; the number names the file, the time when it was written."""
        files = [self.trial(number) / "record.jsonl", self.trial(number) / "result.json"]
        return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}

    def table(self) -> list[tuple[int, str, str]]:
        """Optuna's trials: number, state and drawn values."""
        database = sqlite3.connect(self.folder / "study.db")  # may roll back what the kill left half written
        try:
            rows = database.execute(
                "select number, state, param_value from trials join trial_params using (trial_id) "
                "order by number, param_name"
            ).fetchall()
        finally:
            database.close()
        drawn = {(number, state): [v for n, _, v in rows if n == number] for number, state, _ in rows}
        return [(number, state, str(values)) for (number, state), values in drawn.items()]


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """A driver's local Ray and all its workers."""
    return psutil.Process(process.pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[str]:
    """Which of them still run. Ray's two agents of a node notice a minute later that it is gone."""
    found = []
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(each.cmdline())
            if each.status() != psutil.STATUS_ZOMBIE and "Agent" not in line:
                found.append(line)
    return found


def test_killed_and_resumed(mlflow_server: MlflowServer, cache: Path, tmp_path: Path) -> None:
    sweep = Sweeping(tmp_path, cache, mlflow_server.uri)
    store = MlflowStore(mlflow_server.uri, "mu_search")

    # Killed as soon as the first trial has finished, with kill -9: nothing can be said or tidied.
    driver = sweep.begin("first")
    try:
        wait_until((sweep.folder / "study.db").exists, "no study", 120, sweep.log("first"))
        second = call(*sweep.options, "--resume", cache=cache)
        assert second.status == 2
        assert second.err == "error: name: another process is running the sweep 'killed'\n"
        wait_until((sweep.trial(0) / "result.json").exists, "no first result", 120, sweep.log("first"))
        processes = family(driver)
        assert any("raylet" in name for name in alive(processes))
    finally:
        driver.kill()
        driver.wait()
    wait_until(lambda: not alive(processes), "Ray outlived its driver", 60)
    first, drawn = sweep.content(0), sweep.table()
    assert len(drawn) < 3 or drawn[2][1] == "RUNNING"
    assert call(*sweep.options, cache=cache).err.startswith("error: name: 'killed' is taken; add --resume")

    # Resumed to its end.
    ended = call(*sweep.options, "--resume", cache=cache)
    assert ended.status == 0, ended
    assert sweep.content(0) == first
    assert [(number, state) for number, state, _ in sweep.table()] == [(n, "COMPLETE") for n in range(3)]
    assert len({values for _, _, values in sweep.table()}) == 3
    runs = store.client.search_runs([store.experiment_id], "tags.`tract_ray.sweep` = 'killed'")
    names = sorted((run.info.run_name, run.info.status) for run in runs)
    assert names == [(name, "FINISHED") for name in ("killed", "trial-0000", "trial-0001", "trial-0002")]
    for run in runs:
        if run.info.run_name == "killed":
            continue
        folder = sweep.folder / "trials" / str(run.info.run_name)
        assert run.data.metrics["distance"] == json.loads((folder / "result.json").read_text())["distance"]
        for key in ("loss", "fid_digits"):
            history = store.client.get_metric_history(run.info.run_id, key)
            sent = sorted((p.step, p.value) for p in history)
            assert [step for step, _ in sent] == [step for step, _ in points_of(folder, key)]
            assert [v for _, v in sent] == pytest.approx([v for _, v in points_of(folder, key)])
        assert [line["samples"] for line in lines_of(folder)] == [line["samples"] for line in lines_of(sweep.trial(0))]
