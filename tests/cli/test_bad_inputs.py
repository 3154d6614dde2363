"""Hundreds of bad inputs over all commands: each ends with 2 and one line that names the field; nothing is written."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import typer
from bad_inputs import COMMANDS
from commands import tract_ray
from small_models import model

# What is wrong with the configuration of a model folder of that name.
DAMAGED = {
    "text-steps": ('"steps": 1024', '"steps": "1024"'),
    "negative-steps": ('"steps": 1024', '"steps": -1'),
    "fractional-steps": ('"steps": 1024', '"steps": 1.5'),
    "huge-steps": ('"steps": 1024', '"steps": 1000000000000'),
    "falling-times": ('"times": null', '"times": [1.0, 0.0]'),
    "text-times": ('"times": null', '"times": "all"'),
    "nan-times": ('"times": null', '"times": [NaN, 1.0]'),
    "text-shape": ('"num_classes"', '"shape": "8x8", "num_classes"'),
    "other-prediction": ('"prediction": "v"', '"prediction": "w"'),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, a student, a run without averages, damaged models, a picture that is none, and a pipe
    without a writer.
    """
    folder = tmp_path_factory.mktemp("bad")
    model("mlp_8x8", "v").save(folder / "good")
    model("mlp_8x8", "v", times=[0.0, 1.0]).save(folder / "student")
    model("mlp_8x8", "v", times=[0.0, 1.0]).save(folder / "run" / "student")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "x.png").write_bytes(b"no picture")
    os.mkfifo(folder / "fifo.png")
    (folder / "pipes").mkdir()
    os.mkfifo(folder / "pipes" / "x.png")
    good = re.sub(r',\s*"digest": "\w+"', "", (folder / "good" / "config.json").read_text())
    configs = {name: good.replace(*change) for name, change in DAMAGED.items()} | {"a-list": "[]"}
    for name, config in configs.items():
        assert config != good
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(config)
        os.link(folder / "good" / "model.safetensors", folder / name / "model.safetensors")
    return folder


def listed(folder: Path) -> list[tuple[str, int, int]]:
    """Everything below a folder, with its size and when it was written."""
    found = ((path, path.lstat()) for path in sorted(folder.rglob("*")))
    return [(str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns) for path, stat in found if path.exists()]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("TRACT_RAY_CACHE", raising=False)
    # The same command line every time: to make it takes most of a refusal's milliseconds.
    monkeypatch.setattr("typer.main.get_command", lru_cache(typer.main.get_command))
    before, threads, wrong = listed(place), torch.get_num_threads(), []
    for arguments, field in COMMANDS[command]:
        try:
            called = tract_ray(*([command] if command else []), *arguments.split())
        except Exception as error:
            wrong.append(f"{command} {arguments}: {type(error).__name__}: {error}")
            continue
        lines = called.err.splitlines()
        told = len(lines) == 1 and re.match(f"error: .*({field})", lines[0])
        if called.status != 2 or called.out or not told:
            wrong.append(f"{command} {arguments}: {called.status}, {called.out!r}, {called.err!r}")
        if listed(place) != before:
            wrong.append(f"{command} {arguments}: wrote files")
            before = listed(place)
        if torch.get_num_threads() != threads:
            wrong.append(f"{command} {arguments}: changed the number of threads")
            torch.set_num_threads(threads)
    assert not wrong, "\n".join(wrong)


def test_there_are_hundreds() -> None:
    assert sum(map(len, COMMANDS.values())) >= 200
