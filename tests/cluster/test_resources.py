"""What a cluster is asked for, and what its workers are told."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
import ray
from services import BIN, ROOT, RayCluster, end, free_ports, start

from tract_ray.cluster.resources import Request, Slots, connect, wait_for_slots, worker_environment
from tract_ray.config import InputError


def test_workers_have_the_drivers_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the weights of Inception are, for one; a path that is relative to the driver's folder is made absolute."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inception.pt").touch()
    ours = {"TRACT_RAY_INCEPTION": "inception.pt", "TRACT_RAY_COMMIT": "abc", "HOME": "/root"}
    told = worker_environment(ours)
    package = {"PYTHONPATH": str(ROOT)}
    assert told == {"TRACT_RAY_INCEPTION": str(tmp_path / "inception.pt"), "TRACT_RAY_COMMIT": "abc"} | package


def test_a_jobs_own_variables_stay() -> None:
    job = {"runtime_env": {"env_vars": {"TRACT_RAY_COMMIT": "of the job"}}}
    ours = {"TRACT_RAY_COMMIT": "of the job", "TRACT_RAY_CACHE": "c", "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)}
    assert worker_environment(ours) == {"TRACT_RAY_CACHE": "c"}


@pytest.mark.cluster
def test_a_cluster_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head of no CPU, and a node that joins while a sweep waits; the next one is used, too. Workers are told."""
    folder = Path(tempfile.mkdtemp(prefix="ray-")) / "r"
    folder.mkdir()
    cluster = RayCluster(folder, ROOT, {"OMP_NUM_THREADS": "1"}, cpus=(0,))

    def join(number: int) -> None:
        http, grpc, metrics = free_ports(3)
        command = [BIN / "ray", "start", "--block", f"--address={cluster.address}", "--num-cpus=1"]
        command += [f"--node-ip-address=127.0.0.{2 + number}", f"--temp-dir={folder / str(number)}"]
        command += [f"--dashboard-agent-listen-port={http}", f"--dashboard-agent-grpc-port={grpc}"]
        command += [f"--metrics-export-port={metrics}", f"--object-store-memory={100 << 20}"]
        cluster.nodes.append(start(command, folder.with_name(f"node-{number}.log"), env=cluster.env))

    monkeypatch.setenv("TRACT_RAY_INCEPTION", "/weights.pt")
    try:
        connect(cluster.start().address)
        with monkeypatch.context() as patch:
            patch.setattr("tract_ray.cluster.resources.HEAD_SECONDS", 0.0)
            with pytest.raises(InputError, match=r"can never give \(1 node: 0 CPU, 0 GPU\); if it gr"):
                wait_for_slots(Request(), 0.0, print)
        said: list[str] = []
        threading.Timer(1.0, join, (1,)).start()
        assert wait_for_slots(Request(), 0.0, said.append) == 1
        assert said == ["waiting for nodes, up to 5:00: a trial wants 1 worker of 1 CPU (1 node: 0 CPU, 0 GPU)"]
        limit = Slots(Request(), 8)
        assert limit() == 1
        join(2)
        assert wait_for_slots(Request(workers=2), 60.0, said.append) == 1
        limit.read = float("-inf")  # as if the seconds had passed
        assert (limit(), limit.highest) == (2, 2)
        look = ray.remote(num_cpus=1)(lambda: __import__("os").environ.get("TRACT_RAY_INCEPTION"))
        assert ray.get(look.remote(), timeout=60) == "/weights.pt"
    finally:
        ray.shutdown()
        for node in reversed(cluster.nodes):
            end(node, at_once=True)
        shutil.rmtree(folder.parent, ignore_errors=True)
