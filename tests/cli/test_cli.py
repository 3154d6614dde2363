"""The command line as its user meets it: from a teacher to a score, and what is shown before and meanwhile."""

from __future__ import annotations

import json
import os
import pty
import re
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Called, call_script, content, tract_ray
from PIL import Image
from rich.live import Live
from services import ROOT

from tract_ray import terminal
from tract_ray.data.dataset import to_uint8
from tract_ray.evaluation import fixed_noise
from tract_ray.training import load_model

SWEEP = ROOT / "sweeps" / "mu_search.py"
pytestmark = pytest.mark.usefixtures("short_classifier")

WHAT = ["trials", "dataset", "time-schedule", "samples", "seed"]
WHERE = ["workers-per-trial", "gpus-per-worker", "concurrency", "storage", "mlflow-uri", "name", "resume", "dry-run"]
SCALE, GAP = 8, 2  # screen pixels of one of 8x8, and between images


# --- from a teacher to a score ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("runs")
    return folder


@pytest.fixture(scope="module")
def teacher(storage: Path) -> Path:
    called = tract_ray("teacher", "--network", "mlp_8x8_small", "--samples", "1280", "--storage", storage)
    assert (called.status, called.err) == (0, "")
    return Path(called.out.splitlines()[-1].removeprefix("teacher: "))


@pytest.fixture(scope="module")
def distilled(storage: Path, teacher: Path) -> dict[str, object]:
    """What `tract-ray distill --json` printed."""
    what = ["--teacher", teacher, "--time-schedule", "8,4,1", "--samples", "512", "--mu-i-bank", "0,0.9"]
    called = tract_ray("distill", *what, "--evaluation-samples", "100", "--storage", storage, "--json")
    assert called.status == 0, called
    result: dict[str, object] = json.loads(called.out)
    return result


def test_a_teacher_is_trained_once(storage: Path, teacher: Path) -> None:
    assert {file.name for file in teacher.iterdir()} == {"config.json", "model.safetensors"}
    written = (teacher / "model.safetensors").stat().st_mtime_ns
    options = ["--network", "mlp_8x8_small", "--samples", "1280", "--storage", storage, "--json"]
    again = json.loads(tract_ray("teacher", *options).out)
    assert (again["teacher"], again["parameters"]) == (str(teacher), 247_504)
    assert (teacher / "model.safetensors").stat().st_mtime_ns == written


def test_a_distillation_as_json(distilled: dict[str, object]) -> None:
    distances = distilled["distances"]
    assert isinstance(distances, dict)
    assert {0.0, 0.9} < set(map(float, distances))
    assert distances[repr(distilled["mu_i"])] == min(distances.values()) != distilled["distance"]  # of fresh noise
    assert (distilled["steps"], distilled["samples"], distilled["metric"]) == (1, 512, "fid_digits")
    assert load_model(str(distilled["student"])).steps == 1


def test_samples_are_a_grid_of_them(distilled: dict[str, object], tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    called = tract_ray("sample", distilled["student"], "--out", out, "--count", "10", "--columns", "5", "--seed", "3")
    assert called == Called(0, f"{out}: 10 images, 1 ddim step(s), 1 network call(s) each\n", "")
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"))
    side = 8 * SCALE + GAP
    assert pixels.shape == (2 * side + GAP, 5 * side + GAP, 3)
    student = load_model(str(distilled["student"]))
    images = to_uint8(student.sample(fixed_noise(3, 0, 10, student.shape)))[:, 0].numpy()
    for number, image in enumerate(images):
        top, left = GAP + number // 5 * side, GAP + number % 5 * side
        shown = pixels[top : top + 8 * SCALE : SCALE, left : left + 8 * SCALE : SCALE, 0]
        np.testing.assert_array_equal(shown, image)


def test_an_evaluation_agrees_with_the_run(distilled: dict[str, object], storage: Path) -> None:
    called = tract_ray("evaluate", distilled["student"], "--samples", "100", "--storage", storage)
    assert (called.status, called.err) == (0, "")
    score = json.loads(called.out)
    assert score["distance"] == pytest.approx(distilled["distance"], rel=1e-6)
    assert [score[name] for name in ("metric", "sampler", "steps", "nfe")] == ["fid_digits", "ddim", 1, 1]


@pytest.mark.parametrize(
    ("listing", "keys", "known"),
    [
        (
            "networks",
            ("parameters", "shape"),
            {"unet_cifar10": (60_004_099, [3, 32, 32]), "unet_cifar10_small": (19_419_011, [3, 32, 32])},
        ),
        ("datasets", ("images", "shape"), {"digits": (1797, [1, 8, 8]), "cifar10": (50_000, [3, 32, 32])}),
        ("methods", ("paper",), {"tract": ("Berthelot et al. 2023, arXiv 2303.04248",)}),
    ],
)
def test_listings(listing: str, keys: tuple[str, ...], known: dict[str, tuple[object, ...]]) -> None:
    rows = {row["name"]: row for row in json.loads(tract_ray(listing, "--json").out)}
    assert {name: tuple(rows[name][key] for key in keys) for name in known} == known
    table = tract_ray(listing)
    assert (table.status, table.err) == (0, "")
    for name, row in rows.items():  # a line each, nothing cut off
        line = next(line for line in table.out.splitlines() if line.split()[:1] == [name])
        assert str(row.get("network", "")) in line
        assert "…" not in line


def test_the_version() -> None:
    assert tract_ray("--version") == Called(0, f"tract-ray {version('tract-ray')}\n", "")


def test_completion_can_be_installed() -> None:
    assert "--install-completion" in tract_ray("--help").out


# --- before it begins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "trainings"), [([], 4), (["--teacher", "{teacher}"], 3)])
def test_a_dry_run(tmp_path: Path, teacher: Path, options: list[str], trainings: int) -> None:
    options = [option.format(teacher=teacher) for option in options]
    called = call_script(SWEEP, "--trials", "3", "--storage", tmp_path / "runs", "--name", "dry", "--dry-run", *options)
    assert (called.status, called.err) == (0, "")
    assert content(tmp_path) == {}
    assert re.search(r"^search space\n  mu_s\w+ +\S", called.out, re.M)
    assert re.search(r"^  3 of 3 trials are anchors", called.out, re.M)
    assert "phase 1: 1024 -> 32 steps, 64,000 images" in called.out
    assert "1 worker of 1 CPU" in called.out
    assert re.search(rf"^trainings: {trainings} \(3 trials", called.out, re.M)
    assert f"teacher {'found' if options else 'to be trained'}" in called.out
    assert re.search(r"^about \d+:\d\d a trial of [\d,]+ parameters and \d+:\d\d.* for the teacher", called.out, re.M)
    assert f"the sweep would be {tmp_path / 'runs' / 'sweeps' / 'dry'}" in called.out


@pytest.mark.parametrize("option", [*WHAT, *WHERE])
def test_help_explains(sweep_help: str, option: str) -> None:
    assert re.search(rf"^  --{option} .*\w{{3}}", sweep_help, re.M)


@pytest.fixture(scope="module")
def sweep_help() -> str:
    called = call_script(SWEEP, "--help")
    assert (called.status, called.err) == (0, "")
    assert "Which self-teacher average mu_s" in called.out
    return called.out


# --- meanwhile -------------------------------------------------------------------------------------------------------

PROGRESS = r"teacher +\d+%  [\d,]+ of 1,280 images  [\d,]+/s  (\d+:\d\d|\?) left  loss \d+\.\d+"  # ten times
TEACHER = ["teacher", "--network", "mlp_8x8_small", "--samples", "1280"]


def test_progress_in_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines, and nothing that only a terminal understands."""
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0.0)
    *lines, last = tract_ray(*TEACHER, "--storage", tmp_path).out.splitlines()
    assert last.startswith("teacher: ")
    data, teacher, *progress = lines
    assert (data[:8], teacher[:9]) == ("digits: ", "teacher: ")
    assert len([line for line in progress if re.fullmatch(PROGRESS, line)]) == 10, lines


def test_progress_with_json_stays_out_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0.0)
    called = tract_ray(*TEACHER, "--storage", tmp_path, "--json")
    assert json.loads(called.out)["parameters"] == 247_504
    told = [line for line in called.err.splitlines() if not re.fullmatch(PROGRESS, line)]
    assert {line.partition(": ")[0] for line in told} == {"digits", "teacher"}


@pytest.mark.parametrize(("columns", "counts"), [(80, "  1,280 of 1,280 images"), (50, "")])
def test_progress_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int, counts: str) -> None:
    """One line that fits, written again and again, that stays when the work is done."""

    class Eager(Live):
        """Draws every state, not four a second."""

        def update(self, renderable: Any, *, refresh: bool = False) -> None:
            super().update(renderable, refresh=True)

    monkeypatch.setattr(terminal, "Live", Eager)
    for name, value in {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    master, slave = pty.openpty()
    parts: list[bytes] = []
    reader = threading.Thread(target=lambda: parts.extend(read_all(master)))
    reader.start()
    with os.fdopen(slave, "w") as out:
        called = tract_ray(*TEACHER, "--storage", tmp_path, out=out)
    reader.join()
    os.close(master)
    text = b"".join(parts).decode()
    assert (called.status, called.err) == (0, "")
    assert text.count(" left  loss ") >= 10
    lines = [line.rstrip() for line in shown(text) if line.strip()]
    progress, said = next(line for line in lines if line.startswith("teacher  100%")), lines[-1]
    assert re.fullmatch(rf"teacher  100%{counts}  [\d,]+/s  \d+:\d\d left  loss \d+\.\d+", progress)
    assert said.startswith("teacher: ")


def read_all(terminal: int) -> Iterator[bytes]:
    """What is written to the other end, until that is closed."""
    try:
        while part := os.read(terminal, 4096):
            yield part
    except OSError:  # Linux's end of a terminal
        return


def shown(text: str) -> list[str]:
    """The lines that a terminal shows, by the few control codes that redrawing takes."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token[0] == "\x1b" and token[-1] == "A":
            row -= int(token[2:-1])
        elif token[0] != "\x1b":
            lines[row] = f"{lines[row][:column]:{column}}{token}{lines[row][column + len(token) :]}"
            column += len(token)
    return lines
