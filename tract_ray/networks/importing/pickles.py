"""Reads a pickle of tensors and records without running anything it carries.

Unpickling calls whatever a file names. Here a file may name only the entries of `_allowed`, each of which is ours and
does nothing but hold or rebuild data; any other name is an `InputError`, raised before it is looked up.
"""

from __future__ import annotations

import functools
import io
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from tract_ray.config import InputError, require


class Record:
    """An object of a class that is not loaded: the class's name and the object's attributes."""

    class_name: str = ""
    state: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__["state"] = state

    @classmethod
    def of(cls, meta: dict[str, Any]) -> Record:
        """From EDM's persistence record; the source code beside it (`module_src`) is dropped unread."""
        record = cls()
        record.__dict__.update(class_name=str(meta["class_name"]), state=dict(meta["state"]))
        return record

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Names and values of a recorded module's parameters and buffers, as `state_dict` would give them."""
        volatile = self.state.get("_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers"):
            for name, value in self.state.get(kind, {}).items():
                if value is not None and name not in volatile:
                    yield prefix + name, value
        for name, child in self.state.get("_modules", {}).items():
            if child is not None:
                yield from child.tensors(f"{prefix}{name}.")


def _storage(blob: bytes) -> torch.UntypedStorage:
    """A storage that was saved inside the pickle; torch reads it with its own data-only unpickler."""
    storage = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    require(isinstance(storage, torch.storage.TypedStorage), "pickle", "a tensor's storage holds something else")
    return cast(torch.UntypedStorage, storage)


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    length = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    inside = min((offset, *size, *stride)) >= 0 and (0 in size or last < length) and math.prod(size) <= length
    require(inside, "pickle", f"a tensor of shape {size} reaches beyond its storage")
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


class _NumpyRecord:
    """A numpy type or array by what the pickle says of it. Never numpy's own: their state can hold pointers."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


def _scalar(dtype: _NumpyRecord, data: bytes) -> bool | int | float:
    code, order = str(dtype.arguments[0]), str(dtype.state[1])
    require(code in _NUMBERS and order in "<>|=", "pickle", f"numpy type {code!r} is not a number")
    number: bool | int | float = np.frombuffer(data, np.dtype(order + code))[0].item()
    return number


_NUMBERS = ("b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8")
_numpy: dict[str, Callable[..., Any] | type] = {"scalar": _scalar, "_reconstruct": _NumpyRecord}
_allowed: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Record.of,
    ("torch.nn.modules.container", "ModuleDict"): Record,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("dnnlib.util", "EasyDict"): dict,
    ("collections", "OrderedDict"): dict,
    ("builtins", "set"): set,
    ("numpy", "dtype"): _NumpyRecord,
    ("numpy", "ndarray"): _NumpyRecord,
    **{("numpy.core.multiarray", name): make for name, make in _numpy.items()},
    **{("numpy._core.multiarray", name): make for name, make in _numpy.items()},
}


class _DataUnpickler(pickle.Unpickler):
    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._classes: dict[type, type] = {}

    def find_class(self, module: str, name: str) -> Any:
        target = _allowed.get((module, name))
        if target is None:
            raise InputError(f"pickle: it asks for {module}.{name}, which is not data; nothing was run")
        # A pickle can set attributes on what it is handed, so every load is handed copies of its own.
        if isinstance(target, type):
            return self._classes.setdefault(target, type(target.__name__, (target,), {}))
        return functools.partial(target)


def read_pickle(path: Path) -> Any:
    """The data of a pickle, with `Record`s for its objects. Raises `InputError` for anything that is not data."""
    try:
        with path.open("rb") as file:
            return _DataUnpickler(file).load()
    except InputError:
        raise
    except Exception as error:  # a malformed pickle fails in any way it likes
        raise InputError(f"pickle: {path.name} cannot be read: {type(error).__name__}: {error}") from error
