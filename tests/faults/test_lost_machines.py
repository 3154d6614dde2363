"""Actors, nodes and the head of a cluster are killed: trials go on elsewhere, and with fewer workers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from services import BIN, ROOT, RayCluster, end, start, wait_until
from sweeps_for_tests import SCRIPT, SMALL, call, table

from tract_ray.training.notes import read_notes

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.slow]

OPTIONS = [*SMALL.split(), "--trials", "1", "--time-schedule", "8,1", "--samples", "40960", "--checkpoint-seconds", "1"]


@pytest.fixture
def cluster(cache: Path) -> Iterator[RayCluster]:
    """Two nodes of one CPU."""
    import os

    folder = Path(tempfile.mkdtemp(prefix="ray-")) / "r"
    folder.mkdir()
    env = {"PATH": f"{BIN}:{os.environ['PATH']}", "TRACT_RAY_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    made = RayCluster(folder, ROOT, env, (1, 1))
    try:
        yield made.start()
    finally:
        made.stop()
        shutil.rmtree(folder.parent, ignore_errors=True)


class Sweeping:
    """A sweep of one trial on a cluster, from its beginning until it trains."""

    def __init__(self, folder: Path, cluster: RayCluster, cache: Path, *options: str) -> None:
        where = ["--storage", str(folder), "--mlflow-uri", f"sqlite:///{folder}/mlflow.db", "--name", "lost"]
        self.options, self.log = [*OPTIONS, *where, *options], folder / "log"
        self.sweep = folder / "sweeps" / "lost"
        self.trial = self.sweep / "trials" / "trial-0000"
        command = [sys.executable, SCRIPT, *self.options, "--ray-address", cluster.address]
        self.driver: subprocess.Popen[bytes] = start(command, self.log, env={"TRACT_RAY_CACHE": str(cache)})

    def wait_for_checkpoint(self) -> None:
        file = self.trial / "checkpoint.safetensors"
        wait_until(file.is_file, "no checkpoint", 300, self.log, self.driver)

    def ends(self, status: int) -> str:
        """What it has said when it ends."""
        assert self.driver.wait(300) == status, self.log.read_text()
        assert "Traceback" not in self.log.read_text()
        return self.log.read_text()


def test_a_trial_goes_on_on_another_node(cluster: RayCluster, cache: Path, tmp_path: Path) -> None:
    sweep = Sweeping(tmp_path, cluster, cache)
    try:
        sweep.wait_for_checkpoint()
        at = [number for number in (0, 1) if cluster.processes("ImplicitFunc.train", number)]
        assert len(at) == 1
        for actor in cluster.processes("ImplicitFunc", at[0]):
            actor.kill()
        wait_until(lambda: bool(cluster.processes("ImplicitFunc", 1 - at[0])), "not elsewhere", 120, sweep.log)
        assert "trial-0000  its machine failed; it goes on in 1 s" in sweep.ends(0)
    finally:
        end(sweep.driver, at_once=True)


def test_a_trial_that_loses_a_worker_for_good_goes_on_with_fewer(
    cluster: RayCluster, cache: Path, tmp_path: Path
) -> None:
    sweep = Sweeping(tmp_path, cluster, cache, "--workers-per-trial", "2")
    try:
        sweep.wait_for_checkpoint()
        cluster.kill_node(1)
        sweep.ends(0)
    finally:
        end(sweep.driver, at_once=True)
    assert "cluster: no room for 2 workers any more; going on with 1 and the same batch" in read_notes(sweep.trial)
    (row,) = table(sweep.sweep)
    assert row["status"] == "finished"


def test_a_lost_head_is_one_line(cluster: RayCluster, cache: Path, tmp_path: Path) -> None:
    sweep = Sweeping(tmp_path, cluster, cache)
    try:
        sweep.wait_for_checkpoint()
        (head,) = (p for p in psutil.Process(cluster.nodes[0].pid).children(recursive=True) if "gcs_server" in p.name())
        head.kill()
        said = sweep.ends(75)
    finally:
        end(sweep.driver, at_once=True)
    line = f"failed: cluster: its head at {cluster.address} is gone; the same command with --resume continues"
    assert said.splitlines()[-1] == line
    assert "SIGABRT" not in said
    cluster.stop()
    ended = call(*sweep.options, "--resume", "--ray-address", "local", cache=cache)
    assert ended.status == 0, ended
