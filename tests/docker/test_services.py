"""The commands of compose.yaml, run here without Docker: addresses become loopback ones, nothing else changes.

A job sent to the head runs on the worker and is recorded by MLflow under the name that the services use for it.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from services import BIN, ROOT, end, free_ports, start, wait_until

pytestmark = pytest.mark.cluster

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
HEAD, WORKER = "127.0.0.6", "127.0.0.7"  # two machines, as far as Ray can tell
PATIENCE = 150.0  # seconds; a laptop needs 20

JOB = """
import sys, tract_ray, ray, mlflow
mlflow.set_tracking_uri(sys.argv[1])
ray.init()
nodes = [n for n in ray.nodes() if n["Alive"]]
task = ray.remote(num_cpus=1)(lambda: ray.util.get_node_ip_address())
print("nodes", len(nodes), "task on", ray.get(task.remote()), "version", tract_ray.__version__)
mlflow.set_experiment("docker")
with mlflow.start_run():
    mlflow.log_metric("answer", 42)
    mlflow.log_text("hello", "note.txt")
"""


def substituted(text: str, table: dict[str, str]) -> str:
    """`text` with every key of the table replaced, once: what was put in is not looked at again."""
    return re.sub("|".join(map(re.escape, table)), lambda found: table[found[0]], text)


def healthy(command: list[str], environment: dict[str, str]) -> bool:
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def responds(url: str) -> bool:
    """Whether anything, a refusal included, comes back."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A service, and at the end it and all that it started are gone."""
    process = start(command, log, cwd=log.parent, env=environment)
    try:
        yield process
    finally:
        end(process)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, because Ray's sockets lie below it, and open to the user that PostgreSQL runs as."""
    path = Path(tempfile.mkdtemp(prefix="tract-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def postgres_programs() -> Path | None:
    """The folder of `initdb` and `postgres`."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in places if (place / "postgres").is_file()), None)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """MLflow's store: a file, or the database of the compose file where PostgreSQL is installed."""
    if request.param == "sqlite":
        yield f"sqlite:///{folder}/mlflow.db"
        return
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    own: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        if "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        own = {"user": "postgres", "group": "postgres"}
    port, data, log = free_ports(1)[0], folder / "database", folder / "postgres.log"
    data.mkdir()
    if own:
        shutil.chown(data, "postgres", "postgres")
    settings = SERVICES["postgres"]["environment"]
    secret = folder / "password"
    secret.write_text("secret")
    create = [programs / "initdb", "-D", data, "-U", settings["POSTGRES_USER"], "-A", "scram-sha-256", "--no-sync"]
    subprocess.run([*create, f"--pwfile={secret}"], check=True, capture_output=True, cwd="/", **own)
    options = ["-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", data, "-F"]
    with log.open("wb") as out:
        server = subprocess.Popen([programs / "postgres", *options], stdout=out, stderr=out, cwd="/", **own)
    try:
        import psycopg

        address = f"host=127.0.0.1 port={port} user={settings['POSTGRES_USER']} password=secret"

        def ready() -> bool:
            try:
                with psycopg.connect(f"{address} dbname=postgres", autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {settings['POSTGRES_DB']}")
            except psycopg.OperationalError:
                return False
            return True

        wait_until(ready, "PostgreSQL does not answer", PATIENCE, log, server)
        table = {"${POSTGRES_PASSWORD}": "secret", "postgres:5432": f"127.0.0.1:{port}"}
        yield substituted(SERVICES["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"], table)
    finally:
        server.send_signal(signal.SIGINT)  # "fast": do not wait for clients
        server.wait(timeout=20)


@contextmanager
def mlflow_server(backend: str, folder: Path) -> Iterator[str]:
    """The address of the compose file's MLflow server."""
    (port,) = free_ports(1)
    table = {
        "0.0.0.0": "127.0.0.1",
        "5000": str(port),
        "/mlartifacts": str(folder / "artifacts"),
        "--workers=2": "--workers=1",
    }
    program, *options = [substituted(word, table) for word in SERVICES["mlflow"]["command"]]
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": backend, "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / "mlflow.log"
    with running([str(BIN / program), *options], environment, log) as server:
        url = f"http://127.0.0.1:{port}/health"
        wait_until(lambda: responds(url), "MLflow does not answer", PATIENCE, log, server)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def mlflow_address(backend: str, folder: Path) -> Iterator[str]:
    with mlflow_server(backend, folder) as address:
        yield address


def created_as(host: str, address: str) -> int:
    """The status of a request that names `host` and makes an experiment."""
    content = json.dumps({"name": f"made by {host}"}).encode()
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/experiments/create", content)
    request.add_header("Host", host)
    request.add_header("Content-Type", "application/json")
    try:
        return int(urllib.request.urlopen(request, timeout=30).status)
    except urllib.error.HTTPError as error:
        return error.code


def test_mlflow_records_and_answers_to_its_names_alone(mlflow_address: str) -> None:
    port = mlflow_address.rpartition(":")[2]
    assert created_as(f"mlflow:{port}", mlflow_address) == 200
    assert created_as(f"localhost:{port}", mlflow_address) == 200
    assert created_as("elsewhere.example", mlflow_address) == 403


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Head and worker; the address that jobs go to, and the environment that reaches it."""
    port, dashboard, *others = free_ports(5)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {k: v for k, v in SERVICES["ray-head"].get("environment", {}).items() if k.startswith("RAY_")}
    environment["RAY_AUTH_TOKEN"] = "0123456789abcdef" * 4
    table = {
        "ray-head:6379": f"{HEAD}:{port}",
        "6379": str(port),
        "8265": str(dashboard),
        "0.0.0.0": "127.0.0.1",
        "52365": str(others[0]),
        "${RAY_WORKER_CPUS:-2}": "1",
    }

    def command(name: str) -> list[str]:
        program, *options = [substituted(word, table) for word in SERVICES[name]["command"]]
        return [str(BIN / program), *options]

    # Beside what compose.yaml says: what keeps two nodes apart that share one machine.
    head = [*command("ray-head"), f"--node-ip-address={HEAD}", f"--temp-dir={folder / 'h'}"]
    head += [f"--dashboard-agent-listen-port={others[1]}", f"--object-store-memory={100 << 20}"]
    head += [f"--ray-client-server-port={others[2]}"]
    worker = [*command("ray-worker"), f"--node-ip-address={WORKER}", f"--temp-dir={folder / 'w'}"]
    worker += [f"--object-store-memory={100 << 20}"]
    health = SERVICES["ray-head"]["healthcheck"]["test"]
    check = [str(BIN / health[1]), *(substituted(word, table) for word in health[2:])]
    probe = SERVICES["ray-worker"]["healthcheck"]["test"]
    worker_check = [sys.executable, *probe[2:-1], substituted(probe[-1], {**table, "127.0.0.1": WORKER})]
    url, agent = f"http://127.0.0.1:{dashboard}", f"http://{WORKER}:{others[0]}"
    log = folder / "head.log"
    with running(head, environment, log) as first:
        wait_until(lambda: responds(url), "the dashboard does not answer", PATIENCE, log, first)
        wait_until(lambda: healthy(check, environment), "the head is not healthy", PATIENCE, log, first)
        log = folder / "worker.log"
        with running(worker, environment, log) as second:
            wait_until(lambda: responds(agent), "the worker does not answer", PATIENCE, log, second)
            wait_until(lambda: healthy(worker_check, environment), "the worker is not healthy", PATIENCE, log, second)
            yield url, environment


def submit(address: str, environment: dict[str, str], *script: str) -> subprocess.CompletedProcess[str]:
    program = [str(BIN / "ray"), "job", "submit", "--address", address, "--", sys.executable, *script]
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_job_runs_on_the_worker_and_is_recorded(
    cluster: tuple[str, dict[str, str]], mlflow_address: str, folder: Path
) -> None:
    (folder / "job.py").write_text(JOB)
    done = submit(*cluster, str(folder / "job.py"), mlflow_address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"nodes 2 task on {WORKER}" in done.stdout
    notes = list((folder / "artifacts").rglob("note.txt"))
    assert [note.read_text() for note in notes] == ["hello"] * len(notes) != []


def test_without_the_token_nothing_is_accepted(cluster: tuple[str, dict[str, str]], folder: Path) -> None:
    address, environment = cluster
    (folder / "any.py").write_text("print('ran all the same')")
    done = submit(address, {**environment, "RAY_AUTH_TOKEN": "f" * 64}, str(folder / "any.py"))
    assert done.returncode != 0
    assert "ran all the same" not in done.stdout
    assert "uthenticat" in done.stdout + done.stderr
