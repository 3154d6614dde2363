"""A run on several Ray Train workers (DDP: gloo on CPUs, nccl on GPUs)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tract_ray.config import config_hash, from_dict, to_dict
from tract_ray.files import read_json
from tract_ray.training.distill import run_distillation
from tract_ray.training.paths import Paths
from tract_ray.training.result import RESULT, RunResult
from tract_ray.training.run_config import RunConfig
from tract_ray.training.worker import Worker


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
    in_tune: bool = False,
) -> RunResult:
    """Run `run_distillation` on `workers` processes of `cpus` CPUs and `gpus` GPUs each; returns its result.

    `in_tune` passes every report on to the surrounding Tune trial. A worker that dies is replaced once, and the run
    continues from its checkpoint in `folder`.
    """
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    trainer = TorchTrainer(
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
            failure_config=ray.train.FailureConfig(max_failures=1),
            callbacks=[TuneReportCallback()] if in_tune else [],
        ),
    )
    trainer.fit()
    return RunResult.from_json(read_json(folder / RESULT, "output"))
