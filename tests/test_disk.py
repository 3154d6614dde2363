"""A full disk: what is written waits for room, or ends in one line; nothing half-written is left."""

from __future__ import annotations

import errno
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import torch
import typer

from tract_ray import disk
from tract_ray.config import InputError, MachineFailed
from tract_ray.disk import is_full, on_disk_full
from tract_ray.files import append_text, atomic_folder, copy_file, write_json, write_safetensors, write_text
from tract_ray.search.storage import FileStorage
from tract_ray.terminal import run_app


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB, of which 200 are taken."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    try:
        (place / "ballast").write_bytes(b"x" * 200 * 1024)
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], list[str]]]:
    """Sets what this process does; gives what it then says."""
    lines = list[str]()

    def choose(policy: str) -> list[str]:
        on_disk_full(policy, lines.append)
        return lines

    monkeypatch.setattr(disk, "WAIT_SECONDS", 0.05)
    yield choose
    on_disk_full("wait")


BIG = "x" * 100_000
WRITES: dict[str, Callable[[Path], object]] = {
    "text": lambda place: write_text(place / "file", BIG),
    "json": lambda place: write_json(place / "new" / "file", {"big": BIG}),
    "tensors": lambda place: write_safetensors(place / "file", {"x": torch.zeros(25_000)}),
    "more": lambda place: append_text(place / "line", BIG),
    "copy": lambda place: copy_file(place / "ballast", place / "file"),
    "folder": lambda place: write_in_folder(place / "folder"),
    "study": lambda place: fill_study(place / "study.db"),
}


def write_in_folder(folder: Path) -> None:
    with atomic_folder(folder) as new:
        write_text(new / "file", BIG)


def fill_study(file: Path) -> None:
    """A new study with an attribute of 100,000 characters."""
    study = optuna.create_study(storage=FileStorage(file), study_name="one", load_if_exists=True)
    study.set_user_attr("big", BIG)


def names(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", WRITES)
def test_it_fails_in_one_line(small: Path, said: Callable[[str], list[str]], kind: str) -> None:
    (small / "line").write_text("old\n")
    lines = said("fail")
    with pytest.raises(MachineFailed) as caught:
        WRITES[kind](small)
    assert str(caught.value).startswith(f"storage: no space is left for {small}/")
    assert "\n" not in str(caught.value)
    assert names(small) - {"study.db"} == {"ballast", "line"}
    assert (small / "line").read_text() == "old\n"
    assert not lines


@pytest.mark.parametrize("kind", WRITES)
def test_it_waits_for_room(small: Path, said: Callable[[str], list[str]], kind: str) -> None:
    """It says so once."""
    (small / "line").write_text("old\n")
    lines = said("wait")
    grown = threading.Timer(0.5, lambda: subprocess.run(["mount", "-o", "remount,size=4m", small], check=True))
    grown.start()
    WRITES[kind](small)
    grown.join()
    assert len(lines) == 1
    assert lines[0].endswith("waiting (--on-disk-full fail would end)")
    assert not [name for name in names(small) if name.startswith(".")]
    assert (small / "line").read_text() == "old\n" + (BIG if kind == "more" else "")


def test_what_a_full_disk_is() -> None:
    assert is_full(OSError(errno.ENOSPC, "No space left on device"))
    assert is_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert is_full(OSError("I/O error: No space left on device (os error 28)"))
    assert not is_full(OSError(errno.EACCES, "Permission denied"))
    with pytest.raises(InputError, match="on-disk-full: unknown 'ignore'"):
        on_disk_full("ignore")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "storage: no space is left on a disk"),
        (MachineFailed("storage: no space is left for there"), "storage: no space is left for there"),
    ],
)
def test_a_command_ends_in_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever met the full disk: a library's own files do not wait."""
    app = typer.Typer()

    @app.command()
    def command() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["command"])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    assert ended.value.code == 75
    assert capsys.readouterr().err == f"failed: {line}; the same command continues\n"
