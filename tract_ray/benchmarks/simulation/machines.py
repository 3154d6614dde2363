"""Many Ray nodes and an MLflow server on this machine, as light as they can be."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

# Ray reads these when it is imported. A token of our own, so that none is written into a home folder …
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", uuid.uuid4().hex)
# … and patience: a machine with 64 nodes on it answers slowly, and is not one that has died.
os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")
os.environ.setdefault("RAY_health_check_timeout_ms", "60000")
os.environ.setdefault("RAY_health_check_failure_threshold", "20")
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")

OBJECT_STORE = 80 << 20


@contextmanager
def simulated_cluster(nodes: int) -> Iterator[str]:
    """A Ray cluster of `nodes` nodes with one CPU each, by Ray's own test tools; this process joins it.

    One agent that makes runtime environments serves them all. Dashboard agents, 100 MB a node, do nothing for a sweep:
    something sleeps in their place, and the ports that they would have announced are the -1 of "not in use".
    """
    import ray
    from ray._private import services
    from ray.cluster_utils import Cluster

    raylet: Any = importlib.import_module("ray._raylet")
    real, cluster = services.start_ray_process, Cluster()
    unused = (
        raylet.METRICS_AGENT_PORT_NAME,
        raylet.METRICS_EXPORT_PORT_NAME,
        raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME,
    )

    def start(command: list[str], kind: str, *args: Any, **kwargs: Any) -> Any:
        if kind == "raylet":
            options = dict(part[2:].split("=", 1) for part in command if part.startswith("--") and "=" in part)
            place = options["session_dir"], options["node_id"]
            replace = {"dashboard_agent_command": "sleep 3600", "num_prestart_python_workers": "0"}
            for port in unused:
                raylet.persist_port(*place, port, -1)
            if cluster.head_node:
                replace["runtime_env_agent_command"] = "sleep 3600"
                raylet.persist_port(
                    *place, raylet.RUNTIME_ENV_AGENT_PORT_NAME, cluster.head_node.runtime_env_agent_port
                )
            command = [
                f"--{name}={replace[name]}" if (name := part[2:].partition("=")[0]) in replace else part
                for part in command
            ]
        return real(command, kind, *args, **kwargs)

    # Sockets lie in Ray's folder, and their paths may have 107 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder,
        mock.patch.dict(os.environ, {"PYTHONPATH": str(Path(__file__).parents[3]), "RAY_TMPDIR": folder}),
        mock.patch.object(services, "start_ray_process", start),
    ):
        try:
            for number in range(nodes):
                head: dict[str, Any] = {} if number else {"include_dashboard": False}
                cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE, include_log_monitor=False, **head)
            ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
            yield str(cluster.address)
        finally:
            ray.shutdown()
            cluster.shutdown()


@dataclass(frozen=True)
class Server:
    """A server's port, and its process, which leads a group."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self, seconds: float = 180) -> None:
        """Until it answers."""
        until = time.monotonic() + seconds
        while not _healthy(self.uri):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the MLflow server does not answer; see server.log in its folder")
            time.sleep(0.2)

    def cpu(self) -> float:
        """CPU seconds that its living processes have used."""
        ticks = 0
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = file.read_text().rpartition(")")[2].split()
                ticks += (int(fields[11]) + int(fields[12])) * (int(fields[2]) == self.process.pid)
        return ticks / os.sysconf("SC_CLK_TCK")


def machine() -> tuple[int, int, float]:
    """Of this machine: ticks that its CPUs have worked, all their ticks, and MB of memory that are available."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks), int(memory["MemAvailable"].split()[0]) / 1024


@contextmanager
def mlflow_server(folder: Path) -> Iterator[Server]:
    """`mlflow server` with sqlite and artifacts under `folder`, starting."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env=environment)
    try:
        yield Server(port, process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)


def _healthy(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
