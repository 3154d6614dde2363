"""A run on several Ray Train workers (DDP: gloo on CPUs, nccl on GPUs)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tract_ray.cluster.resources import Request, slots
from tract_ray.config import config_hash, from_dict, to_dict
from tract_ray.files import read_json
from tract_ray.training.distill import run_distillation
from tract_ray.training.notes import note
from tract_ray.training.paths import Paths
from tract_ray.training.result import RESULT, RunResult
from tract_ray.training.run_config import RunConfig
from tract_ray.training.worker import Worker

RESTARTS, LOST_SECONDS = 3, 5.0


def _loop(config: dict[str, Any]) -> None:
    import ray.train
    import ray.train.torch
    import torch

    context = ray.train.get_context()
    torch.set_num_threads(config["cpus"])
    worker = Worker(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    paths = Paths.from_plain(config["paths"])
    run = from_dict(RunConfig, json.loads(config["run"]))
    run_distillation(run, paths, Path(config["folder"]), worker=worker, report=ray.train.report)


def run_with_workers(
    run: RunConfig,
    paths: Paths,
    folder: Path,
    *,
    workers: int,
    cpus: int = 1,
    gpus: int = 0,
    patience: float = 0.0,
    over: Callable[[BaseException], bool] = lambda error: False,
    in_tune: bool = False,
) -> RunResult:
    """Run `run_distillation` on `workers` processes of `cpus` CPUs and `gpus` GPUs each; returns its result.

    `in_tune` passes every report on to the surrounding Tune trial; `over` tells what would only happen again. Where a
    worker dies, all begin again from the checkpoint in `folder`, `RESTARTS` times. They are fewer, of larger shares of
    the same batch, where the cluster has lost what the others ran on, and nothing has taken its place within `patience`
    seconds. (Ray Train's own elasticity knows neither which numbers divide a batch nor the other trials of a sweep.)
    """
    from ray.train import ControllerError

    failures = 0
    while True:
        count = workers_to_be_had(workers, run.method.batch, cpus, gpus, patience)
        if count < workers:
            note(folder, f"cluster: no room for {workers} workers any more; going on with {count} and the same batch")
        try:
            _trainer(run, paths, folder, count, cpus, gpus, in_tune).fit()
            return RunResult.from_json(read_json(folder / RESULT, "output"))
        except ControllerError as error:
            if not _could_not_start(error):
                raise
        except Exception as error:
            failures += 1
            if failures > RESTARTS or over(error):
                raise
        time.sleep(LOST_SECONDS)  # before that Ray counts a node that is gone among the living


def workers_to_be_had(workers: int, batch: int, cpus: int, gpus: int, patience: float) -> int:
    """The most workers, up to `workers`, that the living nodes hold and that divide the batch; at least 1.

    Where they are fewer than `workers`, others may come within `patience` seconds.
    """
    until = time.monotonic() + patience
    while (room := slots(Request(1, cpus, gpus))) < workers and time.monotonic() < until:
        time.sleep(1.0)
    return max(n for n in range(1, max(1, min(workers, room)) + 1) if batch % n == 0)


def _could_not_start(error: Any) -> bool:
    """Whether workers only waited too long for their places, which other trials may hold."""
    return type(error.controller_failure).__name__ in (
        "WorkerGroupStartupTimeoutError",
        "WorkerGroupStartupFailedError",
    )


def _trainer(run: RunConfig, paths: Paths, folder: Path, workers: int, cpus: int, gpus: int, in_tune: bool) -> Any:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    return TorchTrainer(
        _loop,
        train_loop_config={
            "run": json.dumps(to_dict(run)),
            "folder": str(folder),
            "paths": paths.plain(),
            "cpus": cpus,
        },
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=gpus > 0, resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})}
        ),
        run_config=ray.train.RunConfig(
            name=f"{folder.name}-{config_hash(run)}",
            storage_path=str(folder / "ray-train"),
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),
            callbacks=[TuneReportCallback()] if in_tune else [],
        ),
    )
