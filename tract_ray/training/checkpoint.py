"""The checkpoint of a run in progress: one safetensors file, replaced atomically; what is no tensor is its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tract_ray.config import InputError
from tract_ray.distillation import Method
from tract_ray.files import DamagedError, read_tensor_file, write_safetensors

CHECKPOINT = "checkpoint.safetensors"


STATE = {"key", "boundary", "phase", "counters", "step", "record_lines"}
"""What every checkpoint says, beside its tensors."""


@dataclass(frozen=True)
class Position:
    """Where a checkpoint stands: optimiser steps done, lines of the record that belong to them, and the losses of the
    steps since the last line, which the next one will average. What it cost to get there: training images and
    device-seconds of this run, evaluation included; phases that were found ready cost nothing.
    """

    step: int = 0
    record_lines: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    trained: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Position:
        """From what `read_checkpoint` returns."""
        return cls(**{field.name: state[field.name] for field in fields(cls)})


def save_checkpoint(
    path: Path,
    method: Method,
    optimizers: Mapping[str, torch.optim.Optimizer],
    position: Position,
    key: str,
    *,
    boundary: bool = False,
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """Replace the checkpoint at `path`. `key` identifies the run that it belongs to.

    At the `boundary` after a phase, only what the next one needs is stored, and `more`: optimisers that go on.
    """
    tensors, state = checkpoint_content(method, optimizers, position, key, boundary=boundary, more=more)
    write_checkpoint(path, tensors, state)


def checkpoint_content(
    method: Method,
    optimizers: Mapping[str, torch.optim.Optimizer],
    position: Position,
    key: str,
    *,
    boundary: bool = False,
    more: Mapping[str, Tensor] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_checkpoint` stores: tensors, which training goes on to change, and plain data."""
    modules = {k: v for k, v in method.modules().items() if not boundary or k in method.kept()}
    tensors = {f"{name}.{k}": v for name, module in modules.items() for k, v in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer.{name}.{index}.{k}": torch.as_tensor(v) for k, v in state.items()})
    tensors.update(more or {})
    state = {
        "key": key,
        "boundary": boundary,
        **asdict(position),
        "phase": method.phase.index,
        "counters": method.counters(),
    }
    return tensors, state


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path` by this content."""
    write_safetensors(path, tensors, {"state": json.dumps(state)})


def move_checkpoint(
    path: Path, state: Mapping[str, Any], tensors: Mapping[str, Tensor], at: Position, key: str
) -> None:
    """Write what was read of another run's state as the checkpoint of the run `key`, which stands `at` it."""
    write_safetensors(path, tensors, {"state": json.dumps({**state, **asdict(at), "key": key})})


def read_checkpoint(path: Path, key: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The state and tensors of a checkpoint, None where there is none. Refuses one of another configuration."""
    if not path.exists():
        return None
    state, tensors = read_state(path, "checkpoint")
    if state["key"] != key:
        raise InputError(
            f"checkpoint: {path} belongs to another configuration (key {state['key']}, not {key}); "
            "choose another output folder or remove it"
        )
    return state, tensors


def read_state(path: Path, field: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state and tensors of a file that a run or a stage wrote, whatever its key."""
    tensors, about = read_tensor_file(path, field)
    try:
        state = dict(json.loads(about["state"]))
    except (KeyError, TypeError, ValueError):
        state = {}
    if not state.keys() >= STATE:
        raise DamagedError(f"{field}: {path} is damaged (it does not say where its run stood)")
    return state, tensors


def optimizer_tensors(path: Path) -> dict[str, Tensor]:
    """The optimisers' moments of the checkpoint at `path`."""
    return {k: v for k, v in read_tensor_file(path, "checkpoint")[0].items() if k.startswith("optimizer.")}


def restore_method(method: Method, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Put a method back where it was: phase, weights of every network, counters."""
    method.set_phase(method.phases[state["phase"]])
    for name, module in method.modules().items():
        if state["boundary"] and name not in method.kept():
            continue
        own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
        module.load_state_dict({k: own[k] for k in module.state_dict()})
    method.restore_counters(state["counters"])


def restore_optimizer(name: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put an optimiser's moments back."""
    plain = optimizer.state_dict()
    prefix = f"optimizer.{name}."
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, _, field = key.removeprefix(prefix).partition(".")
            plain["state"].setdefault(int(index), {})[field] = value
    optimizer.load_state_dict(plain)
