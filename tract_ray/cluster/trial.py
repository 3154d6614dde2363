"""What runs on the cluster: a trial in its own actor, or a driver of Ray Train workers. One function trains."""

from __future__ import annotations

import json
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from ray.util import get_node_ip_address

from tract_ray.cluster.reports import tell_tune
from tract_ray.cluster.train_workers import run_with_workers
from tract_ray.config import AGAIN, InputError, RunFailed, from_dict
from tract_ray.files import write_text
from tract_ray.training import Paths, RunConfig, Worker, default_device, run_distillation

NODE = "node.txt"
"""Where a trial runs: Tune knows it from a trial's first report on."""


def ran_at(folder: Path) -> str:
    """The address of the node that a trial ran on, "" where it says none."""
    try:
        return (folder / NODE).read_text()
    except OSError:
        return ""


def run_trial(config: dict[str, Any]) -> None:
    """Tune's trainable. `config`: `name`, `run` (JSON), `folder` of all trials, `paths`, `workers`, `cpus`, `gpus`,
    `patience` (seconds that fewer workers wait for others).

    What its configuration cannot do is reported as the last result (`failed`: why), and is over. So is an error of the
    program itself, which would only happen again: but whoever has mended the program may resume the sweep. Whatever
    else goes wrong is the machine's, and raised: the sweep begins the run again.
    """
    run = from_dict(RunConfig, json.loads(config["run"]))
    folder = Path(config["folder"]) / config["name"]
    paths = Paths.from_plain(config["paths"])
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NODE).write_text(get_node_ip_address())
    try:
        if config["workers"] > 1:
            run_with_workers(
                run,
                paths,
                folder,
                workers=config["workers"],
                cpus=config["cpus"],
                gpus=config["gpus"],
                patience=config["patience"],
                over=lambda error: bool(configuration_error(error) or program_error(error)),
                in_tune=True,
            )
        else:
            torch.set_num_threads(config["cpus"])
            device = default_device() if config["gpus"] else torch.device("cpu")
            run_distillation(run, paths, folder, worker=Worker(device=device), report=tell_tune)
    except Exception as error:
        with suppress(OSError):  # a full disk must not hide what went wrong
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "error.txt", traceback.format_exc())
        reason = configuration_error(error) or program_error(error)
        if reason is None:
            raise
        tell_tune({"failed": reason})


PROGRAM = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
)
"""What Python raises for the same code and the same data every time, whatever the machine."""


def program_error(error: BaseException) -> str | None:
    """The line that says what is wrong with the program (a method of one's own, say); None for other errors."""
    workers = getattr(error, "worker_failures", {})
    for each in (*workers.values(), error):
        cause = getattr(each, "cause", None) or each
        if isinstance(cause, PROGRAM):
            line = next(iter(str(cause).splitlines()), "")
            return f"{type(cause).__name__}: {line}; {AGAIN}"
    return None


def configuration_error(error: BaseException) -> str | None:
    """The line that says why a run's configuration cannot come to its end; None if `error` is of another kind.

    What workers raise reaches their driver as the cause of errors of Ray's.
    """
    seen: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        each = todo.pop()
        if not isinstance(each, BaseException) or each in seen:
            continue
        if isinstance(each, InputError | RunFailed):
            return str(getattr(each, "cause", each))
        seen.append(each)
        todo += [each.__cause__, getattr(each, "cause", None), *getattr(each, "worker_failures", {}).values()]
    return None
