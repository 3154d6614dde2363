"""What several processes need at once is made by one of them, and its death does not stop the others."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing as mp
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from runs import checkpoint_every_step, paths_at, tiny_run
from safetensors.torch import load_file

from tract_ray.config import InputError
from tract_ray.training import Paths, Worker, loop, teacher, teacher_folder, train_teacher
from tract_ray.training.claims import claim

CONFIG, STEPS, MIDDLE = tiny_run().teacher, 20, 13
PATIENCE = 60.0  # seconds that a process which waits for another one is given: enough for its imports
CONTEXT = mp.get_context("forkserver")  # as clean as spawned ones, and the imports are made once
CONTEXT.set_forkserver_preload(["tract_ray.training", "sklearn.datasets", "torch._dynamo"])


class Busy(Exception):
    pass


def busy(seconds: float) -> None:
    raise Busy


def test_a_claim_is_given_to_one_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an error, too; the claims of one process exclude each other as those of two."""
    lock = tmp_path / "new" / "thing.lock"
    monkeypatch.setattr(time, "sleep", busy)

    def interrupted() -> None:
        with claim(lock, lambda: False, Worker()) as ready:
            assert not ready
            with pytest.raises(Busy), claim(lock, lambda: False, Worker()):
                pytest.fail("two have it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with claim(lock, lambda: False, Worker()) as ready:
        assert not ready


@pytest.mark.parametrize("looks", [[True], [False, True]], ids=["before", "between two looks"])
def test_what_is_ready_is_not_claimed(looks: list[bool], tmp_path: Path) -> None:
    answers = iter(looks)
    with claim(tmp_path / "lock", lambda: next(answers), Worker()) as ready:
        assert ready
        with claim(tmp_path / "lock", lambda: False, Worker()) as other:
            assert not other
    assert (tmp_path / "lock").exists()


def test_a_place_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of waiting for ever."""
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    message = f"storage: {tmp_path / 'lock'} cannot be locked (No locks available); choose another place"
    with pytest.raises(InputError) as caught, claim(tmp_path / "lock", lambda: False, Worker()):
        pytest.fail("it was given")
    assert str(caught.value) == message


def train_beside(own: Path, paths: Paths, looked: Any, waiting: Event, died: Event | None) -> None:
    """Train the teacher in this process, beside another one that does the same.

    Both have seen that there is none before one begins, and whoever trains stops in the middle until the other has
    found it claimed. With `died`, the first to get there is killed. `own` is told the steps and the weights.
    """
    torch.set_num_threads(1)
    find, make_batch, sleep = teacher.find_teacher, loop.make_batch, time.sleep

    def find_at_once(*arguments: Any) -> Any:
        found = find(*arguments)
        assert found is None
        looked.wait(PATIENCE)
        return found

    def stop_in_the_middle(method: Any, dataset: Any, seed: int, step: int, worker: Worker) -> Any:
        if step == MIDDLE:
            assert waiting.wait(PATIENCE), "both have trained"
            if died and not died.is_set():
                died.set()
                os.kill(os.getpid(), signal.SIGKILL)
        return make_batch(method, dataset, seed, step, worker)

    def wait(seconds: float) -> None:
        waiting.set()
        sleep(seconds)

    steps: list[int] = []
    with (
        mock.patch.object(teacher, "find_teacher", find_at_once),
        mock.patch.object(loop, "make_batch", stop_in_the_middle),
        mock.patch.object(time, "sleep", wait),
        checkpoint_every_step(),
    ):
        model = train_teacher(CONFIG, paths, on_step=lambda step, loss: steps.append(step))
    weights = {name: tensor.tolist() for name, tensor in model.denoiser.module.state_dict().items()}
    own.write_text(json.dumps({"steps": steps, "weights": weights}))


def at_once(paths: Paths, folder: Path, died: Event | None = None) -> tuple[list[int | None], list[Any]]:
    """Exit codes of two processes that need the same teacher at once, and what those that lived have said."""
    looked, waiting = CONTEXT.Barrier(2), CONTEXT.Event()
    files = [folder / f"{number}.json" for number in range(2)]
    processes = [CONTEXT.Process(target=train_beside, args=(file, paths, looked, waiting, died)) for file in files]
    return finish(processes), [json.loads(file.read_text()) for file in files if file.is_file()]


def finish(processes: list[Any], meanwhile: Callable[[], object] = lambda: None) -> list[int | None]:
    """Start the processes, do something `meanwhile`, and wait for their exit codes; none outlives this."""
    try:
        for process in processes:
            process.start()
        meanwhile()
        for process in processes:
            process.join(2 * PATIENCE)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()


def same_as_alone(weights: dict[str, Any], alone: Paths) -> bool:
    expected = load_file(teacher_folder(CONFIG, alone) / "model.safetensors")
    return weights == {name: tensor.tolist() for name, tensor in expected.items()}


def test_two_that_need_the_same_teacher_train_it_once(trained: Paths, tmp_path: Path) -> None:
    codes, said = at_once(paths_at(tmp_path), tmp_path)
    assert codes == [0, 0]
    assert sorted(one["steps"] for one in said) == [[], [*range(1, STEPS + 1)]]
    assert all(same_as_alone(one["weights"], trained) for one in said)
    folder = teacher_folder(CONFIG, paths_at(tmp_path))
    assert {file.name for file in folder.parent.iterdir()} == {folder.name, f".{folder.name}.lock"}


def test_one_that_waits_continues_what_a_killed_one_has_left(trained: Paths, tmp_path: Path) -> None:
    codes, said = at_once(paths_at(tmp_path), tmp_path, CONTEXT.Event())
    assert sorted(map(str, codes)) == [str(-signal.SIGKILL), "0"]
    (other,) = said
    assert other["steps"] == [*range(MIDDLE + 1, STEPS + 1)]
    assert same_as_alone(other["weights"], trained)


def wait_together(rank: int, paths: Paths, meeting: Path, waiting: Event) -> None:
    """A worker of two. The leading one finds the teacher claimed; the other sees a teacher at its first look."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    sleep = time.sleep

    def wait(seconds: float) -> None:
        waiting.set()
        sleep(seconds)

    first_look = mock.Mock() if rank else None
    with (
        mock.patch.object(teacher, "find_teacher", return_value=first_look),
        mock.patch.object(teacher, "train", side_effect=AssertionError("it was trained again")),
        mock.patch.object(time, "sleep", wait),
    ):
        model = train_teacher(CONFIG, paths, Worker(rank, 2))
    assert model is not first_look
    dist.destroy_process_group()


def test_the_workers_of_a_run_wait_together(trained: Paths, tmp_path: Path) -> None:
    """Another process finishes the teacher while they do, and the workers do not see that at the same time."""
    paths, waiting = paths_at(tmp_path), CONTEXT.Event()
    folder = teacher_folder(CONFIG, paths)
    processes = [
        CONTEXT.Process(target=wait_together, args=(rank, paths, tmp_path / "meeting", waiting)) for rank in range(2)
    ]

    claimed = ExitStack()
    claimed.enter_context(claim(folder.with_name(f".{folder.name}.lock"), lambda: False, Worker()))

    def finish_the_teacher() -> None:
        assert waiting.wait(PATIENCE)
        shutil.copytree(teacher_folder(CONFIG, trained), folder)
        claimed.close()

    assert finish(processes, finish_the_teacher) == [0, 0]
