"""Real servers for the tests, on loopback and on free ports; what was started here is stopped by process id."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[1]
HEALTH = "/api/local_raylet_healthz"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. None of those that the kernel gives to clients or Ray to its workers: such a
    one may be taken before it is used.
    """
    free: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 32_768), k=12_768):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            free.append(port)
        if len(free) == count:
            return free
    raise OSError(f"there are no {count} free ports")


def start(
    command: Sequence[str | Path],
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """A process that leads its own group, so that the group can be ended as one."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], *, at_once: bool = False) -> None:
    """End a process of `start` and all its descendants: politely first, unless `at_once`."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None and not at_once:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait(timeout=15)


def wait_until(
    condition: Callable[[], bool],
    what: str,
    seconds: float = 60,
    log: Path | None = None,
    process: subprocess.Popen[bytes] | None = None,
) -> None:
    """Wait for `condition`; fails with the log's end, and at once if `process` has ended."""
    until = time.monotonic() + seconds
    while not condition():
        ended = process.poll() if process else None
        if ended is not None or time.monotonic() > until:
            tail = log.read_text()[-3000:] if log and log.exists() else ""
            raise TimeoutError(
                f"{what} " + (f"after {seconds} s" if ended is None else f"and ended: {ended}") + f"\n{tail}"
            )
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def mlflow_at(uri: str) -> Iterator[None]:
    """MLflow's global address, for those of its calls that take no other."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


@dataclass
class MlflowServer:
    """`mlflow server` with a database and artifacts under `folder`; may be killed and started again on them."""

    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> MlflowServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [BIN / "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        log = self.folder / "server.log"
        # Without its job runners, of which nothing here has need, it starts in half the time.
        self.process = start(command, log, cwd=self.folder, env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
        wait_until(lambda: answers(f"{self.uri}/health"), "the MLflow server does not answer", 90, log)
        return self

    def kill(self) -> None:
        assert self.process is not None
        end(self.process, at_once=True)


@dataclass
class RayCluster:
    """A head and further nodes on addresses of loopback, as `ray start` makes them. The head starts in `cwd`.

    Every port is chosen: Ray's own defaults would meet those of other clusters on the machine.
    """

    folder: Path
    cwd: Path
    env: dict[str, str]
    cpus: Sequence[int] = (2, 2)
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    address: str = ""
    jobs: str = ""

    def start(self) -> RayCluster:
        for number in range(len(self.cpus)):
            # Those in the middle need not be waited for.
            self.start_node(number, wait=number in (0, len(self.cpus) - 1))
        return self

    def start_node(self, number: int, *, wait: bool = True) -> None:
        """Start a node, or start it again after it was killed; number 0 is the head."""
        http, grpc, metrics, *ports = free_ports(6 if number == 0 else 3)
        command = [BIN / "ray", "start", "--block", f"--node-ip-address=127.0.0.{2 + number}"]
        command += [f"--num-cpus={self.cpus[number]}"]
        command += [f"--dashboard-agent-listen-port={http}", f"--dashboard-agent-grpc-port={grpc}"]
        # Of its own, as on a machine of its own: a node deletes uploads that it does not need any more.
        command += [f"--temp-dir={self.folder / str(number)}"]
        command += [f"--metrics-export-port={metrics}", f"--object-store-memory={100 << 20}"]
        if number == 0:
            gcs, dashboard, client = ports
            self.address, self.jobs = f"127.0.0.2:{gcs}", f"http://127.0.0.1:{dashboard}"
            command += ["--head", f"--port={gcs}"]
            command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
            command += [f"--ray-client-server-port={client}"]
        else:
            command += [f"--address={self.address}"]
        log = self.folder.with_name(f"ray-node-{number}.log")
        node = start(command, log, cwd=self.cwd, env=self.env)
        self.nodes[number : number + 1] = [node]
        if wait:
            url = f"http://127.0.0.1:{http}{HEALTH}"
            wait_until(partial(answers, url), f"node {number} does not answer", 90, log, node)

    def kill_node(self, number: int) -> None:
        """As when its machine loses power."""
        end(self.nodes[number], at_once=True)

    def processes(self, kind: str, number: int | None = None) -> list[psutil.Process]:
        """Processes of the cluster, or of one of its nodes, whose title has `kind` in it."""
        found = []
        for node in self.nodes if number is None else [self.nodes[number]]:
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in psutil.Process(node.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                        if kind in " ".join(each.cmdline()):
                            found.append(each)
        return found

    def stop(self) -> None:
        for node in reversed(self.nodes):
            end(node, at_once=True)
