"""A Ray that is started here and for this sweep alone: it listens on loopback, to those that have its token."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray._private import ray_constants

AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
# Ray's word for a machine that cannot be a node of several: its processes then listen on loopback. And what would
# export metrics listens on all interfaces in any case.
SINGLE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_enable_metrics_collection": "0"}
_CLUSTERS = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)


@contextmanager
def apart() -> Iterator[dict[str, Any]]:
    """Yields arguments for the `ray.init` that starts it; its processes inherit the environment of the block.

    The token is one of its own, in memory, unless the environment says how Ray is to ask for one: Ray would write it
    into the home folder. Versions of Ray that cannot be bound to loopback are started as they are.
    """
    own = {} if any(name in os.environ for name in AUTHENTICATION) else {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in (*AUTHENTICATION, *SINGLE)}
    if _CLUSTERS is not None:
        ray_constants.ENABLE_RAY_CLUSTER = False
        own |= SINGLE
    os.environ.update(own)
    try:
        yield {"_node_ip_address": "127.0.0.1"} if _CLUSTERS is not None else {}
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def forget() -> None:
    """Undo what an earlier local Ray left in this process: the next one to be joined has other addresses and tokens."""
    if _CLUSTERS is None or ray_constants.ENABLE_RAY_CLUSTER == _CLUSTERS:
        return
    ray_constants.ENABLE_RAY_CLUSTER = _CLUSTERS
    raylet: Any = importlib.import_module("ray._raylet")
    with suppress(AttributeError):  # older versions know no tokens
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
