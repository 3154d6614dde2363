"""Many Ray nodes on this machine, as light as they can be, and what of Ray a benchmark times."""

from __future__ import annotations

import importlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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
        mock.patch.dict(os.environ, {"PYTHONPATH": str(Path(__file__).parents[2]), "RAY_TMPDIR": folder}),
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


def timed_calls() -> list[tuple[Any, str, str, str]]:
    """What Ray does for a sweep, to be timed: (owner, method, group, what it is)."""
    import ray
    from ray.tune.execution.tune_controller import TuneController

    return [
        (TuneController, "step", "Tune", "event loop: one step"),
        (ray, "wait", "idle", "  waiting for trials"),
        (TuneController, "checkpoint", "Tune", "  experiment state"),
        (TuneController, "_maybe_add_actors", "Tune", "  starting actors"),
    ]
