"""The training loop: one for every method, from the first step of the first phase to the last of the last."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from tract_ray.data import Dataset, sample_indices
from tract_ray.distillation import Batch, Draws, Method, MethodConfig, derive_seed, num_classes, phase_at
from tract_ray.stopping import hold_sigterm, release_sigterm
from tract_ray.training.checkpoint import (
    CHECKPOINT,
    Position,
    read_checkpoint,
    restore_method,
    restore_optimizer,
)
from tract_ray.training.checkpoint_writer import CheckpointWriter
from tract_ray.training.finite import LossWatch, check_weights
from tract_ray.training.gradients import Gradients
from tract_ray.training.record import Record
from tract_ray.training.worker import Worker, check_batch


def make_batch(method: Method, dataset: Dataset, seed: int, step: int, worker: Worker) -> Batch:
    """The local shard of optimiser step `step`: a function of the seed, the step and the sample indices alone."""
    size = method.config.batch
    draws = Draws(derive_seed(seed, step), size, rank=worker.rank, world=worker.world, device=worker.device)
    rows = sample_indices(len(dataset), seed, step * size, size)[draws.local]
    mirror = draws.uniform() < 0.5 if dataset.flip else None
    images, labels = dataset.batch(rows, mirror)
    conditional = any(num_classes(denoiser.module) for denoiser in method.trained.values())
    return Batch(images, labels if conditional else None, draws, step - method.phase.start)


def prepare_gradients(parameters: list[torch.nn.Parameter], config: MethodConfig) -> torch.Tensor:
    """Mend and clip the gradients as `config` says; returns their norm before clipping."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if config.replace_nonfinite:
        for gradient in gradients:
            torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)
    norm = torch.nn.utils.get_total_norm(gradients)
    if config.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, config.clip_norm, norm)
    return norm


def train(
    method: Method,
    dataset: Dataset,
    *,
    seed: int,
    key: str,
    folder: Path,
    worker: Worker | None = None,
    marks: Collection[int] = (),
    on_mark: Callable[[int, Record], None] | None = None,
    on_saved: Callable[[Position], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
    until: int | None = None,
    checkpoint_seconds: float = 60.0,
    log_points: int = 12,
    micro_batch: int = 0,
) -> Position:
    """Train `method` on `dataset` to its end, or `until` a step, from the checkpoint in `folder` if there is one.

    `marks` are numbers of finished optimiser steps after which `on_mark` evaluates, a checkpoint is written and
    `on_saved` is called; others are written about every `checkpoint_seconds` (0: none), beside the steps.
    `on_step(step, loss)` is told about each logged step, of which a phase has `log_points`. A worker computes
    `micro_batch` images at a time, 0: its whole share, and fewer once they do not fit into its memory. The result
    depends on the configuration and `seed` only: not on the number of workers or on parts of the batch (beyond
    rounding), nor on interruptions (not at all).
    """
    worker = worker or Worker()
    batch_size = method.config.batch
    last = method.phases[-1].end if until is None else until
    check_batch(batch_size, worker.world)
    found = read_checkpoint(folder / CHECKPOINT, key)
    state, tensors = found or (asdict(Position()), {})
    if found:
        restore_method(method, state, tensors)
    method.to(worker.device)
    record = Record(folder, state["record_lines"], enabled=worker.leads)
    gradients = Gradients(method, folder, worker, micro_batch)
    for denoiser in method.trained.values():
        denoiser.network = worker.wrap(denoiser.module.train(method.uses_dropout))

    step, resumed, begun = state["step"], bool(found), time.perf_counter()
    optimizers: dict[str, torch.optim.Optimizer] = {}
    watch = LossWatch(method.config, state["loss_sum"], state["loss_count"], worker.device)
    since, since_step = begun, step

    def position() -> Position:
        trained = state["trained"] + (step - state["step"]) * batch_size
        seconds = state["seconds"] + (time.perf_counter() - begun) * worker.world
        return Position(step, record.lines, *watch.so_far(), trained, seconds)

    with hold_sigterm() as held, CheckpointWriter(folder / CHECKPOINT, key, checkpoint_seconds, worker.leads) as writer:
        while step < last:
            phase = phase_at(method.phases, step)
            log_every = max(1, phase.steps // log_points)
            if step == phase.start:
                method.start_phase(phase)
                method.to(worker.device)
                for denoiser in method.trained.values():
                    if denoiser.network is denoiser.module:  # a student of another architecture is not wrapped yet
                        denoiser.network = worker.wrap(denoiser.module.train(method.uses_dropout))
                if not method.optimizers_go_on(phase):
                    optimizers = {}
            if not optimizers:
                optimizers = {
                    name: method.optimizer(name, list(denoiser.module.parameters()))
                    for name, denoiser in method.trained.items()
                }
                if resumed and (step > phase.start or method.optimizers_go_on(phase)):
                    for name, optimizer in optimizers.items():
                        restore_optimizer(name, optimizer, tensors)
                resumed = False

            name = method.active(step - phase.start)
            optimizer = optimizers[name]
            for group in optimizer.param_groups:
                group["lr"] = method.learning_rate(step - phase.start)
            make = partial(make_batch, method, dataset, seed, step, worker)
            batch, loss = gradients.of(name, make, derive_seed(seed, "dropout", step))
            norm = prepare_gradients(list(method.trained[name].module.parameters()), method.config)
            watch.step(loss, norm, optimizer)
            optimizer.step()
            method.after_step(batch)
            step += 1

            if (step - phase.start) % log_every == 0 or step in marks or step == last:
                value = watch.mean(worker, step, optimizer)
                rate = (step - since_step) * batch_size / max(time.perf_counter() - since, 1e-9)
                metrics = {"loss": value, "gradient_norm": float(norm), **watch.counts()}
                record.metrics(step * batch_size, {**metrics, "images_per_second": rate, "phase": phase.index})
                if on_step:
                    on_step(step, value)
                since, since_step = time.perf_counter(), step
            ends = held() and method.settled  # SIGTERM, which waits until there is a checkpoint
            if step in marks or ends or (method.settled and writer.due()):
                if step in marks and on_mark:
                    check_weights(method, step)
                    with release_sigterm():
                        on_mark(step, record)
                    since = time.perf_counter()
                record.sync()  # before what counts its lines
                writer.save(method, optimizers, position())
                if step in marks:
                    writer.wait()
                    if on_saved:
                        on_saved(position())
            if ends:
                break
    check_weights(method, step)
    worker.gather(None)  # what the leading worker wrote is there for all: the next stage begins from it
    return position()
