"""`ray job submit` on a cluster of two nodes, as the README has it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from services import BIN, MlflowServer, RayCluster
from sweeps_for_tests import SMALL

from tract_ray.tracking import MlflowStore

pytestmark = pytest.mark.cluster

MARK = """
import os, sys
from pathlib import Path
with (Path({folder!r}) / str(os.getpid())).open("w") as _file:
    _file.write(__file__ + " " + " ".join(sys.argv))
"""


def submit(cluster: RayCluster, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`ray job submit …`, which waits for the job and prints what it prints."""
    command = [str(BIN / "ray"), "job", "submit", "--address", cluster.jobs, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)


def test_a_sweep_from_an_uploaded_checkout(
    cluster: RayCluster, mlflow_server: MlflowServer, checkout: Path, tmp_path: Path
) -> None:
    """The code that runs, on both nodes, is the one that was sent."""
    (tmp_path / "marks").mkdir()
    clone = Path(shutil.copytree(checkout, tmp_path / "clone"))
    with (clone / "tract_ray" / "__init__.py").open("a") as file:
        file.write(MARK.format(folder=str(tmp_path / "marks")))
    sweep = ["python", "sweeps/mu_search.py", *SMALL.split(), "--storage", tmp_path / "runs", "--name", "uploaded"]
    sweep += ["--mlflow-uri", mlflow_server.uri, "--trials", "3"]
    job = submit(cluster, "--working-dir", ".", "--", *sweep, cwd=clone)
    assert job.returncode == 0, job.stdout + job.stderr
    assert "succeeded" in job.stdout
    assert f"Compare the trials:  {mlflow_server.uri}" in job.stdout
    marks = [file.read_text() for file in (tmp_path / "marks").iterdir()]
    assert all("/working_dir_files/" in mark.split()[0] for mark in marks)
    workers = [mark for mark in marks if "default_worker.py" in mark]
    assert {ip for ip in ("127.0.0.2", "127.0.0.3") for mark in workers if f"--node-ip-address={ip}" in mark} == {
        "127.0.0.2",
        "127.0.0.3",
    }
    results = sorted((tmp_path / "runs" / "sweeps" / "uploaded" / "trials").glob("*/result.json"))
    assert len(results) == 3
    store = MlflowStore(mlflow_server.uri, "mu_search")
    runs = store.client.search_runs([store.experiment_id], "tags.`tract_ray.sweep` = 'uploaded'")
    distances = {run.data.metrics["distance"] for run in runs if run.info.run_name != "uploaded"}
    assert distances == {json.loads(file.read_text())["distance"] for file in results}


def test_a_sweep_where_the_head_was_started_in_the_checkout(
    cluster: RayCluster, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """Without --working-dir; the record goes where the environment says, the folder where the defaults say."""
    sweep = ["python", "sweeps/mu_search.py", *SMALL.split(), "--name", "at-home", "--trials", "1"]
    job = submit(cluster, "--", *sweep, "--mlflow-uri", mlflow_server.uri, cwd=tmp_path)
    assert job.returncode == 0, job.stdout + job.stderr
    assert (cluster.cwd / "runs" / "sweeps" / "at-home" / "trials" / "trial-0000" / "result.json").is_file()
    assert list(tmp_path.iterdir()) == []


def test_a_failing_sweep_makes_the_job_fail(cluster: RayCluster, tmp_path: Path) -> None:
    sweep = ["python", "sweeps/mu_search.py", "--time-schedule", "1024,30,1", "--storage", tmp_path / "runs"]
    job = submit(cluster, "--", *sweep, cwd=tmp_path)
    assert job.returncode != 0
    assert "error: time_schedule: each number must divide the one before: 30 does not divide 1024" in job.stdout
    assert "Traceback" not in job.stdout
    assert list(tmp_path.iterdir()) == []
