"""Checkpoints are written beside the training: the state of one step, whole, and not too often."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import content_of, tiny_run
from safetensors.torch import load_file
from torch import Tensor

from tract_ray import files
from tract_ray.config import InputError
from tract_ray.data import load_dataset
from tract_ray.distillation import Denoising, Method
from tract_ray.networks import build_network
from tract_ray.training import Paths, checkpoint_writer, run_distillation, train
from tract_ray.training.checkpoint import CHECKPOINT, read_checkpoint
from tract_ray.training.checkpoint_writer import CheckpointWriter


def method() -> Method:
    network = build_network("mlp_8x8", options={"width": 16, "blocks": 1, "embedding": 16}, seed=0)
    return Denoising(tiny_run().teacher.training, None, network)


def student(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "student."
    return {name.removeprefix(prefix): t.clone() for name, t in tensors.items() if name.startswith(prefix)}


def test_steps_go_on_while_the_state_of_one_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is held until eight more steps are done; what it then writes is the state at its step."""
    seen: dict[int, dict[str, Tensor]] = {}
    later, write = threading.Event(), checkpoint_writer.write_checkpoint

    def held(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        assert later.wait(20), "training waits for its checkpoint"
        write(path, tensors, state)
        written.append(state["step"])

    written: list[int] = []
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", held)
    trained = method()

    def on_step(step: int, loss: float) -> None:
        seen[step] = {name: t.clone() for name, t in trained.modules()["student"].state_dict().items()}
        if step == 9:
            later.set()

    train(
        trained,
        load_dataset("digits"),
        seed=0,
        key="k",
        folder=tmp_path,
        on_step=on_step,
        log_points=20,
        checkpoint_seconds=1e-9,
    )
    assert written[0] == 1
    found = read_checkpoint(tmp_path / CHECKPOINT, "k")
    assert found is not None
    state, tensors = found
    own = student(tensors)
    assert own.keys() == seen[state["step"]].keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in seen[state["step"]].items())


def test_a_write_that_fails_leaves_the_older_one_and_ends_the_run(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out at the latest where the stage ends; the run continues from the older one to the same student."""
    run = tiny_run()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_writer, "write_checkpoint", once(checkpoint_writer.write_checkpoint))
        with pytest.raises(OSError, match="no space left"):
            run_distillation(run, paths, tmp_path / "run", reuse=False)
    found = load_file(tmp_path / "run" / CHECKPOINT)
    assert student(found)
    run_distillation(run, paths, tmp_path / "run", reuse=False)
    run_distillation(run, paths, tmp_path / "whole", reuse=False)
    assert content_of(tmp_path / "run") == content_of(tmp_path / "whole")


def once(write: Any) -> Any:
    """Writes the first time only."""
    calls: list[int] = []

    def written(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise OSError("no space left on device")
        write(*arguments)

    return written


def test_they_take_a_fiftieth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(checkpoint_writer.time, "monotonic", lambda: now[0])
    with CheckpointWriter(tmp_path / CHECKPOINT, "k", 60.0) as writer:
        due = []
        for cost, after in ((0.1, 59), (0.1, 61), (3.0, 61), (3.0, 149), (3.0, 151)):
            writer.cost, now[0] = cost, writer.saved + after
            due.append(writer.due())
        assert due == [False, True, False, False, True]
    with CheckpointWriter(tmp_path / CHECKPOINT, "k", 0) as never, CheckpointWriter(tmp_path, "k", 1, False) as other:
        now[0] += 1e6
        assert not never.due()
        assert not other.due()


def test_how_often_is_part_of_no_key(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often = Paths(paths.storage, paths.cache, checkpoint_seconds=1e-9)
    writes: list[int] = []
    write = checkpoint_writer.write_checkpoint
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", lambda *a: (writes.append(a[2]["step"]), write(*a)))
    run_distillation(tiny_run(), often, tmp_path / "often", reuse=False)
    assert len(writes) > 4
    marks = writes.copy()
    rare = Paths(paths.storage, paths.cache, checkpoint_seconds=0)
    run_distillation(tiny_run(), rare, tmp_path / "rare", reuse=False)
    assert writes[len(marks) :] == [15, 30, 45, 60]  # where it is scored
    assert content_of(tmp_path / "rare") == content_of(tmp_path / "often")
    with pytest.raises(InputError, match="checkpoint_seconds: must be 0 or more"):
        Paths(paths.storage, paths.cache, checkpoint_seconds=-1)


def test_a_tensor_is_copied_only_where_another_has_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, int] = {}
    save = files.save_file
    monkeypatch.setattr(
        files, "save_file", lambda t, *a: (given.update({n: v.data_ptr() for n, v in t.items()}), save(t, *a))
    )
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "a": whole,
        "again": whole,
        "part": torch.zeros(9)[2:5],
        "turned": torch.ones(2, 3).T,
        "empty": whole[:0],
    }
    files.write_safetensors(tmp_path / "x.safetensors", tensors)
    assert given["a"] == whole.data_ptr()
    assert given["again"] != whole.data_ptr()
    read = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
