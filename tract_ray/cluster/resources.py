"""Ray: reaching a cluster or starting one, and whether what a sweep wants can ever fit."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import AuthenticationError, RayError
from ray.util import placement_group_table

from tract_ray.cluster.local_ray import apart, forget
from tract_ray.config import InputError, require
from tract_ray.network import first_answer
from tract_ray.stopping import keep_sigterm
from tract_ray.terminal import duration

# For the Ray that is started or joined below, which prints and records nothing that the sweep does by itself.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a run that cannot go on reports why, and no score
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # how soon a worker's report reaches its trial
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends a sweep; Tune would carry on with the report
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what asks for no GPU still sees those there are


HEAD_SECONDS, POLL_SECONDS, REREAD_SECONDS = 300.0, 1.0, 5.0


@dataclass(frozen=True)
class Request:
    """What one trial needs: `workers` processes of `cpus` CPUs and `gpus` GPUs each."""

    workers: int = 1
    cpus: int = 1
    gpus: int = 0

    def __post_init__(self) -> None:
        require(self.workers >= 1, "workers-per-trial", f"must be at least 1, got {self.workers}")
        require(self.cpus >= 1, "cpus-per-worker", f"must be at least 1, got {self.cpus}")
        require(self.gpus >= 0, "gpus-per-worker", f"must not be negative, got {self.gpus}")

    def describe(self) -> str:
        """For people."""
        each = f"{self.cpus} CPU" + (f" + {self.gpus} GPU" if self.gpus else "")
        return f"{self.workers} worker{'s' if self.workers > 1 else ''} of {each}"


def check_address(address: str | None) -> None:
    """Raise a one-line `InputError` where nothing answers at the cluster's address."""
    named = address or os.environ.get("RAY_ADDRESS")
    if not named or named in ("auto", "local"):
        return
    require(
        "://" not in named,
        "ray-address",
        f"{named!r} is not HOST:PORT; to run on a cluster elsewhere, send the sweep to it with `ray job submit`",
    )
    require(
        answers(named),
        "ray-address",
        f"nothing answers at {named}; start it with `ray start --head`, or leave the option out to start a local Ray",
    )


def connect(address: str | None) -> str:
    """Join the cluster at `address`, the one this machine belongs to, or start one here; returns which.

    Raises a one-line `InputError` where it cannot be joined.
    """
    if ray.is_initialized():
        return "the connected cluster"
    named = address or os.environ.get("RAY_ADDRESS") or ("auto" if _machines_cluster() else "local")
    # A checkout that is not installed: its workers must find the package, too. A job brings its own environment.
    environment = worker_environment(os.environ)
    if named != "local":
        # Ray Train asks for the cluster's state by a search of its own, which may end at another one of this machine.
        environment["RAY_ADDRESS"] = named if named != "auto" else _machines_cluster()
    forget()
    try:
        with ExitStack() as started:
            started.enter_context(keep_sigterm())  # Ray's own handler ends in a dump
            own = started.enter_context(apart()) if named == "local" else {}
            context = ray.init(
                address=named,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": environment},
                **({"include_dashboard": False} if named == "local" else {}),
                **own,
            )
    except AuthenticationError:
        raise InputError(
            f"ray-address: the cluster at {named} asks for a token; export RAY_AUTH_MODE=token, "
            "and RAY_AUTH_TOKEN_PATH where the token is not in ~/.ray/auth_token"
        ) from None
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        raise InputError(f"ray-address: cannot join the cluster at {named} ({str(error).splitlines()[0]})") from None
    return "a local Ray" if named == "local" else f"the Ray cluster at {context.address_info['gcs_address']}"


def worker_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What workers of a cluster need of the driver's environment: where the package is, and its own variables.

    A job brings an environment, in which what it names stays as it is: Ray joins the two only if they share no name.
    """
    job = json.loads(ours.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "null"))
    taken = ((job or {}).get("runtime_env") or {}).get("env_vars") or {}
    found = {} if job is not None else {"PYTHONPATH": str(Path(__file__).parents[2])}
    for name, value in ours.items():
        if name.startswith("TRACT_RAY_") and name not in taken:
            path = Path(value).expanduser()
            found[name] = str(path.absolute()) if path.exists() else value  # a worker's folder is another
    return found


def _machines_cluster() -> str:
    """The address of the cluster that `ray start` made on this machine, "" if there is none that answers.

    Ray's own search believes the file that a killed cluster left behind, and waits for it for ten minutes.
    """
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    address = note.read_text().strip() if note.is_file() else ""
    return address if address and answers(address) else ""


def answers(address: str) -> bool:
    """Whether a server of HTTP/2, as Ray's head is, says so: `ray.init` waits for minutes for one that is silent."""
    host, _, port = address.rpartition(":")
    try:
        answer = first_answer(host, int(port), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    except (OSError, ValueError, OverflowError):
        return False
    return answer[3:4] == b"\x04"  # the kind of its first frame: SETTINGS


def slots(request: Request) -> int:
    """How many trials fit at once on the nodes that the cluster has now."""
    each = (
        min(
            int(node.get("CPU", 0) // request.cpus),
            int(node.get("GPU", 0) // request.gpus) if request.gpus else 1 << 30,
        )
        for node in _nodes()
    )
    return sum(each) // request.workers


def wait_for_slots(request: Request, seconds: float, say: Callable[[str], None]) -> int:
    """How many trials fit at once (at least 1), after waiting for nodes up to `seconds`.

    A cluster without any CPU, as a head by itself is, is waited for in any case. An `InputError` where no trial fits.
    """
    if not any(node.get("CPU") for node in _nodes()):
        seconds = max(seconds, HEAD_SECONDS)
    until, said = time.monotonic() + seconds, False
    while not (count := slots(request)):
        nodes = _nodes()
        have = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}: " + "; ".join(
            f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes
        )
        require(
            time.monotonic() < until,
            "gpus-per-worker" if request.gpus and not any(n.get("GPU") for n in nodes) else "workers-per-trial",
            f"a trial wants {request.describe()}, which this cluster can never give ({have}); if it grows, "
            "--wait-for-nodes SECONDS",
        )
        if not said:
            say(f"waiting for nodes, up to {duration(seconds)}: a trial wants {request.describe()} ({have})")
            said = True
        time.sleep(POLL_SECONDS)
    return count


class Slots:
    """How many trials may run at once, up to `most`: read again every few seconds, as a cluster may grow."""

    def __init__(self, request: Request, most: int) -> None:
        self.request, self.most = request, most
        self.now, self.read = 0, float("-inf")
        self.highest = 0

    def __call__(self) -> int:
        if time.monotonic() - self.read > REREAD_SECONDS:
            self.now, self.read = max(1, min(slots(self.request), self.most)), time.monotonic()
            self.highest = max(self.highest, self.now)
        return self.now


def _nodes() -> list[dict[str, float]]:
    """The resources of each living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def trial_device(request: Request) -> str:
    """What trials compute on, which need not be what their driver sees."""
    if not request.gpus:
        return f"cpu ({platform.machine()})"
    names = {name for node in ray.nodes() if node["Alive"] for name in node["Resources"]}
    kinds = sorted(name.partition(":")[2] for name in names if name.startswith("accelerator_type:"))
    return ", ".join(kinds) or "gpu"


def stale_placement_groups() -> int:
    """Placement groups that hold resources although their job is gone: they starve a sweep for ever."""
    return sum(group["state"] in ("CREATED", "PENDING") for group in placement_group_table().values())
