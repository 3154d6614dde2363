"""Ray Tune runs what the study hands out."""

from __future__ import annotations

from typing import Any

from ray import tune

from tract_ray.cluster.resources import Request
from tract_ray.cluster.tune_searcher import StudyScheduler, StudySearcher
from tract_ray.sweep.definition import Sweep


def run_on_tune(sweep: Sweep, searcher: StudySearcher, concurrency: int) -> None:
    """Let Tune run what `searcher` hands out, until it says that there is no more."""
    attempt = 1 + sum(1 for _ in (sweep.folder / "tune").glob("attempt-*"))
    paths = {"storage": str(sweep.paths.storage), "cache": str(sweep.paths.cache)}
    tune.Tuner(
        tune.with_resources(sweep.trainable, _resources(sweep.request)),
        param_space={
            "folder": str(sweep.folder / "trials"),
            "paths": {**paths, "data_root": sweep.paths.data_root},
            "workers": sweep.request.workers,
            "cpus": sweep.request.cpus,
            "gpus": sweep.request.gpus,
        },
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(searcher),
            num_samples=-1,
            max_concurrent_trials=concurrency,
            reuse_actors=sweep.request.workers == 1,
        ),
        run_config=tune.RunConfig(
            name=f"attempt-{attempt:03d}",
            storage_path=str(sweep.folder / "tune"),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    ).fit()


def _resources(request: Request) -> Any:
    """One worker: the trial's own actor computes. Several: the actor only drives, and must not hold their CPUs."""
    if request.workers == 1:
        return {"cpu": request.cpus, "gpu": request.gpus}
    # A byte of memory: Ray wants a bundle to ask for something, and a driver that asks for CPU starves its workers.
    return tune.PlacementGroupFactory([{"memory": 1}])
