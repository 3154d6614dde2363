"""Two workers (gloo, DDP) make the student of one, from the same samples."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from runs import content_of, tiny_run
from safetensors.torch import load_file

from tract_ray.evaluation import classifier
from tract_ray.training import Paths, RunConfig, Worker, checkpoint_writer, run_distillation, train_teacher
from tract_ray.training.teacher import teacher_folder


def uneven_run() -> RunConfig:
    """The evaluation's shares are not of one size."""
    run = tiny_run()
    return replace(run, evaluation=replace(run.evaluation, samples=81, rung_samples=71, per_phase=1))


def work(rank: int, paths: Paths, folder: Path) -> None:
    torch.set_num_threads(1)
    classifier.RECIPE["steps"] = 20
    meeting, patience = f"file://{folder}.meeting", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=patience)
    worker = Worker(rank, 2)
    try:
        train_teacher(replace(uneven_run().teacher, seed=1), paths, worker)
        result = run_distillation(uneven_run(), paths, folder, worker=worker)
        save = checkpoint_writer.write_checkpoint
        checkpoint_writer.write_checkpoint = lambda *a: (time.sleep(0.5), save(*a))  # the others are far ahead
        alone = folder.with_name("unshared")
        unshared = run_distillation(uneven_run(), paths, alone, worker=worker, reuse=False)
        (folder / f"unshared-{rank}.json").write_text(json.dumps(unshared.to_json()))
        (folder / f"rank-{rank}.json").write_text(json.dumps(result.to_json()))
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(trained: Paths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("two") / "run"
    mp.spawn(work, (trained, folder), nprocs=2)
    return folder


def test_the_student_is_the_same(two: Path, paths: Paths, tmp_path: Path) -> None:
    one = run_distillation(uneven_run(), paths, tmp_path)
    alone, shared = content_of(tmp_path), content_of(two)
    weights, others = (load_file(f / "student" / "model.safetensors") for f in (tmp_path, two))
    start = load_file(teacher_folder(uneven_run().teacher, paths) / "model.safetensors")
    for name, weight in weights.items():
        assert (weight - others[name]).abs().max() < 1e-4
    assert max((weight - start[name]).abs().max() for name, weight in weights.items()) > 1e-2  # it did learn
    assert shared["result"]["samples"] == one.samples == 960
    assert shared["result"]["distance"] == pytest.approx(one.distance, rel=1e-3)
    assert len(shared["record"]) == len(alone["record"])
    for line, other in zip(alone["record"], shared["record"], strict=True):
        assert line["samples"] == other["samples"]
        assert other.get("metrics", {}) == pytest.approx(line.get("metrics", {}), rel=1e-2)


def test_no_worker_begins_a_stage_before_the_last_one_is_written(two: Path) -> None:
    """Without a cache to meet at: all begin it from the same checkpoint, and so make the same student again."""
    shared, *unshared = (
        json.loads((two / f"{name}.json").read_text()) for name in ("rank-0", "unshared-0", "unshared-1")
    )
    assert [run["distances"] for run in unshared] == [shared["distances"]] * 2
    assert [run["trained"] for run in unshared] == [960] * 2


def test_every_worker_returns_the_result(two: Path) -> None:
    """The timing aside: each measures its own."""
    first, second = (json.loads((two / f"rank-{rank}.json").read_text()) for rank in range(2))
    timing = {"seconds": 0, "device_seconds": 0, "seconds_per_image": 0}
    assert {**first, **timing} == {**second, **timing}


def test_the_teacher_is_the_same(two: Path, trained: Paths, tmp_path: Path) -> None:
    config = replace(uneven_run().teacher, seed=1)
    shared = train_teacher(config, trained)
    alone = train_teacher(config, Paths(tmp_path, tmp_path))
    for name, weight in alone.denoiser.module.state_dict().items():
        assert (weight - shared.denoiser.module.state_dict()[name]).abs().max() < 1e-5
