"""Files on disk: whole or not at all, private where they hold settings, and never read where they are damaged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tract_ray.config import InputError
from tract_ray.files import (
    DamagedError,
    atomic_folder,
    mend_folder,
    open_end,
    open_lock,
    read_json,
    read_safetensors,
    set_aside,
    write_json,
    write_safetensors,
)

TENSORS = {
    "weights": torch.arange(24.0).reshape(2, 3, 4),
    "half": torch.arange(5, dtype=torch.bfloat16),
    "scalar": torch.tensor(7),
    "none": torch.zeros(0, 3),
}

KILLED = """
import os, sys
from pathlib import Path
from tract_ray.files import atomic_folder

renames, real = 0, Path.replace
def replace(self, target):
    global renames
    renames += 1
    if renames == 2:  # the old folder has been moved away, the new one is not there yet
        os._exit(9)
    return real(self, target)
Path.replace = replace
with atomic_folder(Path(sys.argv[1])) as new:
    (new / "text").write_text("new")
"""


def flip(file: Path, at: int, count: int = 64) -> None:
    data = bytearray(file.read_bytes())
    for place in range(at, min(at + count, len(data))):
        data[place] ^= 0x55
    file.write_bytes(bytes(data))


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "file", {**TENSORS, "strided": TENSORS["weights"].transpose(0, 2)})
    found = read_safetensors(tmp_path / "file", "test")
    assert found.keys() == {*TENSORS, "strided"}
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_a_flip_anywhere_in_a_tensor_file_is_found(tmp_path: Path) -> None:
    """Of every 16th place, its header and the digest itself included."""
    file = tmp_path / "file"
    write_safetensors(file, TENSORS, {"state": '{"step": 3}'})
    whole = file.read_bytes()
    for place in range(0, len(whole), 16):
        flip(file, place, 1)
        with pytest.raises(DamagedError, match=r"^test: .* is damaged"):
            read_safetensors(file, "test")
        file.write_bytes(whole)
    assert torch.equal(read_safetensors(file, "test")["scalar"], TENSORS["scalar"])


def test_a_number_that_changed_in_json_is_found(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"distance": 57.99, "steps": 1})
    assert read_json(tmp_path / "file", "test") == {"distance": 57.99, "steps": 1}
    text = (tmp_path / "file").read_text()
    (tmp_path / "file").write_text(text.replace("57.99", "56.99"))
    with pytest.raises(DamagedError, match=r"^test: .* is damaged \(its content is not what was written\)$"):
        read_json(tmp_path / "file", "test")


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    with atomic_folder(folder) as new:
        (new / "text").write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, folder], check=False)
    assert killed.returncode == 9
    assert not folder.exists()
    assert (mend_folder(folder) / "text").read_text() == "old"
    with atomic_folder(folder) as new:
        (new / "text").write_text("newer")
    assert (folder / "text").read_text() == "newer"
    assert not list(tmp_path.glob("*.old"))


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = list[str]()
    sync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        order.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name.split('.')[-1]}")
        sync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        order.append(f"rename to {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    with atomic_folder(tmp_path / "folder") as new:
        (new / "text").write_text("x")
    place = order.index("rename to folder")
    assert "fsync text" in order[:place]
    assert len(order[:place]) == 2  # the file, and the folder's own list of names
    assert order[place + 1 :] == [f"fsync {tmp_path.name}"]
    del order[:]
    write_safetensors(tmp_path / "file", TENSORS)
    assert [word.split()[0] for word in order] == ["fsync", "rename", "fsync"]


def test_a_lock_follows_no_link_and_cuts_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        open_lock(tmp_path / "link")
    open_lock(tmp_path / "precious").close()
    assert (tmp_path / "precious").read_text() == "content"


def test_what_is_appended_to_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        open_end(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_with_settings_is_its_owners_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "settings", {}, private=True)
    write_json(tmp_path / "result", {})
    assert (tmp_path / "settings").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "result").stat().st_mode & 0o444 == 0o444


def test_what_was_damaged_can_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "stage").mkdir()
    aside = set_aside(tmp_path / "stage")
    assert (aside.is_dir(), aside.suffix, (tmp_path / "stage").exists()) == (True, ".damaged", False)
    set_aside(tmp_path / "stage")  # another process was quicker


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2]", b"{", b"[" * 100_000])
def test_what_is_no_json_object_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(tmp_path / "file", "test")
    assert "\n" not in str(caught.value)
