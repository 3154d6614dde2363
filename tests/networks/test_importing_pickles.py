"""A pickle runs nothing."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from tract_ray.config import InputError
from tract_ray.networks.importing import import_teacher


class Runs:
    """Pickles to a call of `function(*arguments)`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("attack", ["system", "eval", "getattr", "torch.load", "nested"])
def test_a_pickle_that_runs_code_is_refused_by_name_and_runs_nothing(tmp_path: Path, attack: str) -> None:
    marker = tmp_path / "marker"
    touch = Runs(os.system, f"touch {marker}")
    data, name = {
        "system": (touch, f"{os.system.__module__}.system"),
        "eval": (Runs(eval, f"open({str(marker)!r}, 'w')"), "builtins.eval"),
        "getattr": (Runs(getattr, "", "join"), "builtins.getattr"),
        "torch.load": (Runs(torch.load, str(marker)), "torch.serialization.load"),
        "nested": ({"ema": [OrderedDict(a=touch)]}, f"{os.system.__module__}.system"),
    }[attack]
    path = tmp_path / "teacher.pkl"
    path.write_bytes(pickle.dumps(data, protocol=4))
    with pytest.raises(InputError, match=f"asks for {name}"):
        import_teacher(path)
    assert not marker.exists()


def test_code_inside_a_tensors_bytes_does_not_run(tmp_path: Path) -> None:
    marker, inner = tmp_path / "marker", tmp_path / "inner"
    torch.save(Runs(os.system, f"touch {marker}"), inner, _use_new_zipfile_serialization=False)
    path = tmp_path / "teacher.pkl"
    path.write_bytes(pickle.dumps(Runs(torch.storage._load_from_bytes, inner.read_bytes()), protocol=4))
    with pytest.raises(InputError, match="pickle"):
        import_teacher(path)
    assert not marker.exists()


@pytest.mark.parametrize(("size", "stride"), [((5,), (1,)), ((2, 2), (3, 1)), ((10**12,), (0,)), ((2,), (-1,))])
def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    memory = torch.zeros(4).untyped_storage()
    storage = torch.storage.TypedStorage(wrap_storage=memory, dtype=torch.float32, _internal=True)
    rebuild = Runs(torch._utils._rebuild_tensor_v2, storage, 0, size, stride, False, {})
    path = tmp_path / "teacher.pkl"
    path.write_bytes(pickle.dumps(rebuild, protocol=4))
    with pytest.raises(InputError, match="beyond its storage"):
        import_teacher(path)
