"""Files that appear whole or not at all and say when they are damaged, and tensors on disk without pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tract_ray.config import InputError, require
from tract_ray.disk import with_room

DIGEST = "digest"
ABOUT = "tract_ray"
"""The one name in a tensor file's metadata: several would be written in any order, and equal files would differ."""
UNSIGNED = {"state", "snapshot"}
"""What metadata held before there were digests. Any other name is a damaged one."""

ATTEMPTS = 20


class DamagedError(InputError):
    """A file does not hold what was written to it."""


def sync(path: Path) -> None:
    """Have a file, or a folder's list of names, on the disk when this returns: a rename may outlive what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # a file system that cannot
        pass
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(folder: Path, *, keep: bool = False) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` when the block ends without an error.

    With `keep`, one that is there by then stays: a reader never meets the moment between two equal folders. Else that
    moment is the reader's to mend (`mend_folder`), should a kill fall into it.
    """
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    with_room(folder, lambda: new.mkdir(parents=True))
    try:
        yield new
        for path in (*new.rglob("*"), new):
            sync(path)
        _put(new, folder, keep)
        sync(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _put(new: Path, folder: Path, keep: bool) -> None:
    """Rename `new` to `folder`, which cannot replace a full one in one call: that goes to `_old` in between."""
    for attempt in range(ATTEMPTS):
        if folder.exists():
            if keep:
                return
            shutil.rmtree(_old(folder), ignore_errors=True)
            with suppress(OSError):
                folder.replace(_old(folder))
        try:
            new.replace(folder)
            break
        except OSError:  # another process has put one there, or has put the old one back
            if attempt == ATTEMPTS - 1 or not folder.exists():
                raise
    shutil.rmtree(_old(folder), ignore_errors=True)


def mend_folder(folder: Path) -> Path:
    """Put the old folder back where `atomic_folder` was killed between its two renames; returns `folder`."""
    if not folder.exists():
        with suppress(OSError):
            _old(folder).replace(folder)
    return folder


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def set_aside(path: Path) -> Path:
    """Rename what is damaged, so that nobody reads it again and a person can look at it; returns its new name."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.damaged")
    with suppress(FileNotFoundError):  # another process was quicker
        path.replace(aside)
    return aside


def made_again(path: Path, damage: object, how: str = "made again") -> str:
    """Set aside what a cache holds at `path`, which anybody can make again; returns the line that says so."""
    return f"{damage}; it is kept as {set_aside(path).name} and {how}"


def require_local(path: Path, field: str) -> None:
    """Refuse an address (`s3://bucket/runs`), which would become a folder of that odd name."""
    text = str(path)
    scheme = next((part for part in path.parts if len(part) > 2 and part.endswith(":")), None)
    require(scheme is None, field, f"{text} is an address; give a folder of this machine, or mount it")


def require_file_place(path: Path, field: str) -> None:
    """Raise `InputError` where no file can be written at `path`: a folder, a pipe, an address, below a file."""
    require_local(path, field)
    require(not path.is_dir(), field, f"{path} is a folder; name a file")
    require(path.is_file() or not path.exists(), field, f"{path} is no plain file; choose another name")
    require_writable(path.parent, field)


def require_writable(folder: Path, field: str) -> None:
    """Raise `InputError` unless `folder`, or what of its path exists, can be written to."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    require(there.is_dir() and os.access(there, os.W_OK), field, f"{there} is not a writable folder")


def open_lock(path: Path) -> IO[str]:
    """A file to lock: made where it is missing, never cut, and never behind a link that somebody has put there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o644), "r+")


def open_end(path: Path) -> IO[str]:
    """A file to write to its end: made where it is missing, never behind a link."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o644), "a")


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a file so that a reader sees the old content or the new, never a part; `private`: its owner alone."""
    write_bytes(path, text.encode(), private=private)


def write_bytes(path: Path, content: bytes, *, private: bool = False) -> None:
    """As `write_text`."""
    with_room(path, lambda: _write(path, content, 0o600 if private else 0o666))


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync(path.parent)


def append_text(path: Path, text: str) -> None:
    """Add to a file (`open_end`), all of `text` or nothing."""

    def append() -> None:
        with open_end(path) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                file.write(text)
                file.flush()
            except OSError:
                os.truncate(path, before)
                raise

    with_room(path, append)


def copy_file(source: str | Path, target: str | Path) -> Path:
    """Copy a file to a new place, all of it or nothing."""
    return with_room(Path(target), lambda: _copy(source, Path(target)))


def _copy(source: str | Path, target: Path) -> Path:
    try:
        return Path(shutil.copy(source, target))
    except OSError:
        target.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Mapping[str, Any], *, private: bool = False) -> None:
    """Write a JSON object with a digest of its content, which `read_json` checks."""
    plain = json.loads(json.dumps(data))
    write_text(path, json.dumps({**plain, DIGEST: _digest(plain)}, indent=2) + "\n", private=private)


def read_json(path: Path, field: str) -> dict[str, Any]:
    """A JSON object from a file. A missing or damaged one is an `InputError` that names `field` and the file."""
    _require_file(path, field)
    try:
        data = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{field}: {path} is damaged ({_line(error)})") from None
    if not isinstance(data, dict):
        raise DamagedError(f"{field}: {path} is damaged (it holds no JSON object)")
    told = data.pop(DIGEST, None)
    if told is not None and told != _digest(data):
        raise DamagedError(f"{field}: {path} is damaged (its content is not what was written)")
    return data


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Save tensors in one atomic step; shared or strided storage is made contiguous first.

    The metadata gets a digest of everything in the file, which `read_tensor_file` checks.
    """
    own = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    about = dict(metadata or {})
    signed = {ABOUT: json.dumps({**about, DIGEST: _digest(about, own)}, sort_keys=True)}
    with_room(path, lambda: _write_tensors(path, own, signed))


def _write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        save_file(tensors, str(new), metadata)
        sync(new)
        new.replace(path)
    except SafetensorError as error:  # its word for what the system says
        raise OSError(str(error)) from None
    finally:
        new.unlink(missing_ok=True)
    sync(path.parent)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, copied where an earlier one has the same memory: the file holds each by itself."""
    seen, apart = set[int](), {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        shares = place in seen or tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size()
        apart[name] = tensor.clone() if shares else tensor
        seen.add(place)
    return apart


def read_tensor_file(path: Path, field: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file. A missing or damaged one is an `InputError` that names `field` and the file.

    Files that were written before there were digests have none to be checked.
    """
    _require_file(path, field)
    try:
        with safe_open(str(path), framework="pt") as file:
            found = dict(file.metadata() or {})
            about = dict(json.loads(found.pop(ABOUT))) if ABOUT in found else found
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise DamagedError(f"{field}: {path} is damaged ({_line(error)})") from None
    told = about.pop(DIGEST, None)
    if not found.keys() <= UNSIGNED or (about is not found and told != _digest(about, tensors)):
        raise DamagedError(f"{field}: {path} is damaged (its content is not what was written)")
    return tensors, about


def _require_file(path: Path, field: str) -> None:
    require(path.exists(), field, f"{path} does not exist")
    if not path.is_file():
        raise DamagedError(f"{field}: {path} is damaged (it is no file)")


def read_safetensors(path: Path, field: str) -> dict[str, Tensor]:
    """Tensors of a file; errors as in `read_tensor_file`."""
    return read_tensor_file(path, field)[0]


def _digest(about: Any, tensors: Mapping[str, Tensor] | None = None) -> str:
    """SHA-256 of plain data and of tensors' names, types, shapes and bytes (0.15 s for 60 million float32)."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted((tensors or {}).items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
