"""kill -9 at 20 random moments of a sweep of multi-worker trials: its table and record are the undisturbed ones."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from services import BIN, ROOT, MlflowServer, RayCluster, end, start, wait_until
from sweeps_for_tests import SCRIPT, SMALL, points_of, table

from tract_ray.tracking import MlflowStore

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.slow]

KINDS = ("worker", "actor", "node", "driver", "MLflow server")
TITLES = {"worker": "RayTrainWorker", "actor": "ImplicitFunc"}
KILLS = int(os.environ.get("KILLS", "20"))
OPTIONS = [*SMALL.split(), "--trials", "4", "--workers-per-trial", "2", "--concurrency", "1", "--time-schedule", "8,1"]
OPTIONS += ["--checkpoint-seconds", "0.5", "--retries", "100", "--wait-for-nodes", "600", "--name", "kills"]
OPTIONS += ["--samples", os.environ.get("KILLS_SAMPLES", "102400")]


class Storm:
    """A sweep, its cluster and its MLflow server, any part of which may be killed and is started again."""

    def __init__(self, folder: Path, cluster: RayCluster, server: MlflowServer) -> None:
        self.folder, self.cluster, self.server = folder, cluster, server
        self.sweep, self.log = folder / "sweeps" / "kills", folder / "log"
        self.drivers = 0
        self.driver = self.drive()

    def drive(self) -> subprocess.Popen[bytes]:
        """Start the sweep, or resume it."""
        self.drivers += 1
        where = ["--storage", self.folder, "--mlflow-uri", self.server.uri, "--ray-address", self.cluster.address]
        resume = ["--resume"] if (self.sweep / "sweep.json").is_file() else []
        env = {"TRACT_RAY_CACHE": str(self.folder / "cache")}
        return start([sys.executable, SCRIPT, *OPTIONS, *where, *resume], self.log, env=env)

    def lines(self) -> int:
        """How far it is: the lines in the records of its trials."""
        return sum(len(file.read_bytes().splitlines()) for file in self.sweep.glob("trials/*/record.jsonl"))

    def kill(self, kind: str, chance: random.Random) -> None:
        """Kill one of a kind, and start again what nobody else would."""
        if kind == "driver":
            self.driver.kill()
            self.driver.wait()
            self.driver = self.drive()
        elif kind == "node":
            number = chance.choice((1, 2))  # the head is another matter
            self.cluster.kill_node(number)
            self.cluster.start_node(number)
        elif kind == "MLflow server":
            self.server.kill()
            time.sleep(chance.uniform(0, 3))
            self.server.start()
        else:
            found = self.cluster.processes(TITLES[kind])
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(found).kill()

    def has(self, kind: str) -> bool:
        return kind not in TITLES or bool(self.cluster.processes(TITLES[kind]))

    def ends(self) -> None:
        assert self.driver.wait(900) == 0, self.log.read_text()[-3000:]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A head without room for trials, and two nodes of two CPUs."""
    folder = Path(tempfile.mkdtemp(prefix="ray-")) / "r"
    folder.mkdir()
    env = {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    made = RayCluster(folder, ROOT, env, (0, 2, 2))
    try:
        yield made.start()
    finally:
        made.stop()
        shutil.rmtree(folder.parent, ignore_errors=True)


def test_twenty_kills(cluster: RayCluster, mlflow_server: MlflowServer, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    alone = Storm(tmp_path / "alone", cluster, mlflow_server)
    alone.ends()
    seed = int(os.environ.get("KILLS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
    print(f"seed of the kills: {seed} (KILLS_SEED={seed} repeats them)")
    chance = random.Random(seed)
    marks = sorted(chance.sample(range(1, alone.lines()), KILLS))
    shutil.copytree(tmp_path / "alone" / "cache" / "teachers", tmp_path / "killed" / "cache" / "teachers")
    storm, kinds = Storm(tmp_path / "killed", cluster, MlflowServer(tmp_path / "server").start()), list[str]()
    try:
        for mark in marks:
            wait_until(lambda mark=mark: storm.lines() >= mark, f"line {mark} after {kinds}", 300, storm.log)
            time.sleep(chance.uniform(0, 1.5))
            kind = chance.choice([kind for kind in KINDS if storm.has(kind)])
            storm.kill(kind, chance)
            kinds.append(kind)
            print(f"line {mark:3}: {kind}", flush=True)
        storm.ends()
        assert len(kinds) == KILLS
        assert table(storm.sweep) == table(alone.sweep)
        store = MlflowStore(storm.server.uri, "mu_search")
        runs = store.client.search_runs([store.experiment_id], "tags.`tract_ray.sweep` = 'kills'")
        ids = {run.info.run_name: run.info.run_id for run in runs}
        assert len(ids) == len(runs) == 5
        for number in range(4):
            trial = f"trial-{number:04d}"
            for key in ("loss", "fid_digits"):
                history = store.client.get_metric_history(ids[trial], key)
                sent = sorted((point.step, point.value) for point in history)
                assert sent == points_of(storm.sweep / "trials" / trial, key)
                assert sent == points_of(alone.sweep / "trials" / trial, key)
    finally:
        end(storm.driver, at_once=True)
        storm.server.kill()
