"""Part of the contract: two workers (gloo, DDP) train every method, with labels, to the networks of one worker."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from small_methods import other_settings, small_config, small_network, view
from torch import Tensor

from tract_ray.data import Dataset, load_dataset
from tract_ray.distillation import Method, methods
from tract_ray.training import Worker, train

CHANGING = "a student that changes in the second phase"


def conditional(kind: str) -> Method:
    """A method with labels, every setting changed and float64 networks: what differs beyond rounding shows."""
    teacher, student = (small_network(10, seed).double() for seed in (0, 1))
    if kind == CHANGING:
        method = methods["tract"](small_config("tract", 9, time_schedule=(8, 4, 4, 1)), view("tract", teacher), student)
        method.students = {0: lambda _: student, 1: lambda _: small_network(10, 2, width=16).double()}
        return method
    return methods[kind](small_config(kind, **other_settings(kind)), view(kind, teacher), student)


def trained(kind: str, digits: Dataset, folder: Path, worker: Worker) -> dict[str, Tensor]:
    """All weights of the method after its last step."""
    method = conditional(kind)
    train(method, digits, seed=1, key="", folder=folder, worker=worker)
    named = method.modules().items()
    return {f"{name}.{k}": v.clone() for name, module in named for k, v in module.state_dict().items()}


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    digits = load_dataset("digits")
    limit = timedelta(seconds=120)  # where one waits for the other in vain
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=limit)
    try:
        for kind in (*sorted(methods), CHANGING):
            weights = trained(kind, digits, folder / kind, Worker(rank, 2))
            save_file(weights, folder / f"{kind}-{rank}.safetensors")
        if rank == 0:  # a run of its own in a process that has partners: the other one does not know of it
            lone = trained("moment_matching_instant", digits, folder / "lone", Worker())
            save_file(lone, folder / "lone.safetensors")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pair of processes for all methods: starting them takes longer than training."""
    folder: Path = tmp_path_factory.mktemp("two")
    mp.spawn(work, (folder,), nprocs=2)
    return folder


def test_two_workers_agree_where_the_student_changes(two: Path, digits: Dataset, tmp_path: Path) -> None:
    """The new network is wrapped as the first one was: without, each worker would follow its own shard."""
    test_two_workers_agree_with_one(CHANGING, two, digits, tmp_path)


def test_two_workers_agree_with_one(kind: str, two: Path, digits: Dataset, tmp_path: Path) -> None:
    first, second = (load_file(two / f"{kind}-{rank}.safetensors") for rank in range(2))
    alone = trained(kind, digits, tmp_path, Worker())
    assert alone.keys() == first.keys() == second.keys()
    for name, weight in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert (weight - first[name]).abs().max() < 1e-7, name


def test_a_lone_run_among_others_waits_for_nobody(two: Path, digits: Dataset, tmp_path: Path) -> None:
    """What is summed over workers is summed over the run's, of whatever process group it finds itself in."""
    lone, alone = load_file(two / "lone.safetensors"), trained("moment_matching_instant", digits, tmp_path, Worker())
    assert all(torch.equal(weight, lone[name]) for name, weight in alone.items())


def test_the_student_learned(kind: str, two: Path) -> None:
    after = load_file(two / f"{kind}-0.safetensors")
    start = conditional(kind).modules()["student"].state_dict()
    assert max((after[f"student.{name}"] - weight).abs().max() for name, weight in start.items()) > 1e-3
