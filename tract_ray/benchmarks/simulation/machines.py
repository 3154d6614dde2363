"""An MLflow server on this machine, as light as it can be, and what the machine is doing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


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
