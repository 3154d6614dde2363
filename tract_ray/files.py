"""Files that appear whole or not at all, and tensors on disk without pickle."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tract_ray.config import InputError, require


@contextmanager
def atomic_folder(folder: Path, *, keep: bool = False) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` when the block ends without an error.

    With `keep`, one that is there by then stays: a reader never meets the moment between two equal folders.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    new.mkdir()
    try:
        yield new
        if keep and folder.exists():
            return
        old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
        if folder.exists():
            folder.replace(old)  # a folder cannot be replaced by a full one in one call
        try:
            new.replace(folder)
        except OSError:
            if not folder.exists():
                raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def require_writable(folder: Path, field: str) -> None:
    """Raise `InputError` unless `folder`, or what of its path exists, can be written to."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    require(there.is_dir() and os.access(there, os.W_OK), field, f"{there} is not a writable folder")


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    new.write_text(text)
    new.replace(path)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Save tensors in one atomic step; shared or strided storage is made contiguous first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    own = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    save_file(own, str(new), dict(metadata or {}))
    new.replace(path)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, copied where an earlier one has the same memory: the file holds each by itself."""
    seen, apart = set[int](), {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        shares = place in seen or tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
        apart[name] = tensor.clone() if shares else tensor
        seen.add(place)
    return apart


def read_safetensors(path: Path, field: str) -> dict[str, Tensor]:
    """Tensors of a file. A missing or damaged one is an `InputError` that names `field` and the file."""
    if not path.is_file():
        raise InputError(f"{field}: {path} does not exist")
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{field}: {path} is damaged ({str(error).splitlines()[0]})") from None


def read_metadata(path: Path, field: str) -> dict[str, str]:
    """The metadata of a safetensors file; errors as in `read_safetensors`."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{field}: {path} is damaged ({str(error).splitlines()[0]})") from None


def read_json(path: Path, field: str) -> dict[str, Any]:
    """A JSON object from a file. A missing or damaged one is an `InputError` that names `field` and the file."""
    if not path.is_file():
        raise InputError(f"{field}: {path} does not exist")
    try:
        data = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{field}: {path} is damaged ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{field}: {path} holds no JSON object")
    return data
