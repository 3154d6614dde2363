"""Ray Tune runs what the study hands out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from tract_ray.cluster.resources import Request
from tract_ray.cluster.tune_searcher import StudyScheduler, StudySearcher
from tract_ray.training import Paths

NODE = "ray.io/node-id"
"""Ray's own label of every node."""


def run_on_tune(
    trainable: Callable[[dict[str, Any]], None],
    searcher: StudySearcher,
    *,
    folder: Path,
    paths: Paths,
    request: Request,
    patience: float,
) -> None:
    """Let Tune run what `searcher` hands out, until it says that there is no more.

    What a machine fails `searcher` may hand out again, as another trial of Tune's: it continues from its folder. A
    trial of several workers waits `patience` seconds for those that it has lost. `folder` is the sweep's: its trials
    are below `trials/`, and what Tune keeps is below `tune/`.
    """
    # A trial that failed is one line, and why is in its folder; Tune would add the traceback of its own call.
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    attempt = 1 + sum(1 for _ in (folder / "tune").glob("attempt-*"))
    tune.Tuner(
        tune.with_resources(trainable, _resources(request)),
        param_space={
            "folder": str(folder / "trials"),
            "paths": paths.plain(),
            "workers": request.workers,
            "cpus": request.cpus,
            "gpus": request.gpus,
            "patience": patience,
        },
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(searcher),
            num_samples=-1,
            reuse_actors=request.workers == 1,
        ),
        run_config=tune.RunConfig(
            name=f"attempt-{attempt:03d}",
            storage_path=str(folder / "tune"),
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    ).fit()


def _resources(request: Request) -> Callable[[dict[str, Any]], Any]:
    """One worker: the trial's own actor computes. Several: the actor only drives, and must not hold their CPUs."""

    def bundles(config: dict[str, Any]) -> Any:
        if request.workers == 1:
            labels = {"bundle_label_selector": [{NODE: f"!{config['avoid']}"}]} if config.get("avoid") else {}
            return tune.PlacementGroupFactory([{"CPU": request.cpus, "GPU": request.gpus}], **labels)
        # A byte of memory: Ray wants a bundle to ask for something, and a driver that asks for CPU starves its workers.
        return tune.PlacementGroupFactory([{"memory": 1}])

    return bundles
