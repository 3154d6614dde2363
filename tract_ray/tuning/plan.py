"""`--dry-run`: what a sweep would do and about what it would cost, without any machine."""

from __future__ import annotations

import time

import torch
from rich.console import Console

from tract_ray.data import dataset_info
from tract_ray.diffusion import predictions
from tract_ray.networks import count_parameters
from tract_ray.terminal import duration
from tract_ray.training import find_teacher
from tract_ray.training.run_config import build_for
from tract_ray.tuning.sweep import Sweep

PROBE = 16


def print_plan(sweep: Sweep, console: Console) -> None:
    """Print the space, the resources, the number of trainings and an estimate of the cost."""
    run = sweep.run
    found = find_teacher(run.teacher, sweep.paths)
    console.print(f"{sweep.experiment}: {sweep.question}\n")
    console.print("search space")
    for name, text in sweep.space.describe().items():
        console.print(f"  {name:<16} {text}")
    console.print(
        f"  {len(sweep.space.anchors[: sweep.trials])} of {sweep.trials} trials are anchors: run first, never stopped"
    )
    console.print("each trial")
    for phase in run.method.phases():
        samples = phase.steps * run.method.batch
        console.print(
            f"  phase {phase.index + 1}: {phase.teacher_steps} -> {phase.student_steps} steps, {samples:,} images"
        )
    console.print(f"  {sweep.request.describe()}; early stopping {'on' if sweep.early_stopping else 'off'}")
    trainings = sweep.trials + (found is None)
    images = sweep.trials * run.method.samples + (0 if found else run.teacher.training.samples)
    console.print(f"trainings: {trainings} ({sweep.trials} trials, teacher {'found' if found else 'to be trained'})")
    console.print(f"images at most: {images:,}")
    forward, backward, parameters = _probe(sweep)
    # A TRACT step calls the teacher and the self-teacher forward, the student forward and backward.
    trial = run.method.samples * (2 * forward + backward) / sweep.request.workers
    taught = 0.0 if found else run.teacher.training.samples * backward
    parallel = max(1, sweep.concurrency or 1)
    console.print(
        f"about {duration(trial)} a trial of {parameters:,} parameters and {duration(taught)} for the teacher on a CPU "
        f"core like this one, {duration(taught + sweep.trials * trial / parallel)} in all at {parallel} at once, "
        "evaluation not counted"
    )
    console.print(f"nothing was run; the sweep would be {sweep.folder}, the record {sweep.mlflow_uri}")


def _probe(sweep: Sweep) -> tuple[float, float, int]:
    """Seconds an image of a forward call and of a training step, measured here, and the number of parameters."""
    network_config = sweep.run.teacher.network
    model = find_teacher(sweep.run.teacher, sweep.paths)
    if model is not None:
        network, shape, classes = model.denoiser.module.requires_grad_(True), model.shape, model.num_classes
    else:
        assert network_config is not None
        info = dataset_info(sweep.run.teacher.dataset)
        shape, classes = info.shape, info.num_classes if sweep.run.teacher.conditional else 0
        channels = sweep.run.teacher.training.prediction
        assert channels in predictions
        network = build_for(network_config, shape, channels, classes, seed=0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x, logsnr = torch.randn(PROBE, *shape), torch.zeros(PROBE)
        labels = torch.zeros(PROBE, dtype=torch.int64) if classes else None

        def timed(train: bool) -> float:
            started = time.perf_counter()
            with torch.set_grad_enabled(train):
                out = network(x, logsnr, labels)
                if train:
                    out.square().mean().backward()
            return (time.perf_counter() - started) / PROBE

        timed(True)
        return min(timed(False) for _ in range(3)), min(timed(True) for _ in range(3)), count_parameters(network)
    finally:
        torch.set_num_threads(threads)
