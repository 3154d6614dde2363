"""A fuzz of every file that a run reads back: one line, or made again with the undisturbed numbers. Never others."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from commands import content, tract_ray
from damages import DAMAGES, damage
from PIL import Image
from small_models import model

from tract_ray.training import EvaluationConfig, Paths, TeacherConfig, loop, score_teacher

RUN = (
    "distill --teacher good --time-schedule 8,2,1 --samples 320 --batch 16 --lr 1e-3 --mu-i-bank 0.5 --json "
    "--set mu_i_snapshots=1 --evaluation-samples 40 --rung-samples 20 --storage store --out"
)
TEACHER = "teacher --network mlp_8x8_small --samples 320 --batch 16 --json --storage"
LOOK = "datasets folder:pictures@8 --json"
SCORE = "evaluate good --steps 2 --samples 40 --storage store"
REFERENCE = "reference"  # no command has a row of its own
MODEL = ("config.json", "model.safetensors")
AVERAGES = ("index.json", "*.safetensors")
MAKE = "--out new.out"
undisturbed: dict[str, dict[str, Any]] = {}  # what each command finds where nothing is damaged
# The file, the command that reads it, and whether it is made again; of several files of a name, the last one.
FILES: list[tuple[str, str, bool]] = [
    *((f"store/cache/stages/*/{name}", f"{RUN} new", True) for name in ("state.safetensors", "stage.json")),
    *((f"store/cache/stages/*/{name}", f"{RUN} new", True) for name in ("record.jsonl", "images/*.png")),
    *((f"store/cache/stages/*/averages/{name}", f"{RUN} new", True) for name in AVERAGES),
    ("halfway/checkpoint.safetensors", f"{RUN} halfway", True),
    ("halfway/record.jsonl", f"{RUN} halfway", True),
    ("half/cache/teachers/*.training/checkpoint.safetensors", f"{TEACHER} half", True),
    ("half/cache/teachers/*.training/record.jsonl", f"{TEACHER} half", True),
    ("store/cache/classifiers/*/model.safetensors", SCORE, True),
    ("store/cache/scores/*.json", REFERENCE, True),
    ("decoded/*.json", LOOK, True),
    ("decoded/*/pixels", LOOK, True),
    ("run/result.json", f"{RUN} run", False),
    *(
        (f"good/{name}", command, False)
        for name in MODEL
        for command in (f"sample good {MAKE}.png", SCORE, f"export good --format safetensors {MAKE}", f"{RUN} new")
    ),
    ("full/cache/teachers/digits*/config.json", f"{TEACHER} full", False),
    ("full/cache/teachers/digits*/model.safetensors", f"{TEACHER} full", False),
    *((f"run/student/{name}", f"reconstruct run --mu-i 0.5 {MAKE}", False) for name in MODEL),
    *((f"run/averages/{name}", f"reconstruct run --mu-i 0.8 {MAKE}", False) for name in AVERAGES),
]  # fmt: skip


class Killed(BaseException):
    """Not an `Exception`: nothing in the package may catch it."""


@pytest.fixture(scope="module")
def whole(short_classifier: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a teacher, a finished run, interrupted ones, their caches and pictures; a copy is beside it."""
    folder: Path = tmp_path_factory.mktemp("whole") / "place"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model("mlp_8x8", "v").save(folder / "good")
        (folder / "pictures").mkdir()
        for number in range(3):
            colour = (80 * number, 200, 30)
            Image.new("RGB", (8, 8), colour).save(folder / "pictures" / f"{number}.png")
        patch.setenv("TRACT_RAY_DATA_CACHE", str(folder / "decoded"))
        answers(f"{TEACHER} full")
        with killed_at(12):
            answers(f"{TEACHER} half --checkpoint-seconds 1e-9")
        answers(f"{RUN} run")
        answers(REFERENCE)
        with killed_at(7):
            answers(f"{RUN.replace('store', 'scratch')} halfway --checkpoint-seconds 1e-9")
        shutil.copytree(folder, folder.with_name("copy"))
        yield folder


class killed_at:
    """Dies when the optimiser step of that number is about to begin; until then every step is on disk."""

    def __init__(self, step: int) -> None:
        self.step, self.make_batch = step, loop.make_batch

    def __enter__(self) -> None:
        def make_batch(method: Any, dataset: Any, seed: int, step: int, worker: Any) -> Any:
            if step == self.step:
                raise Killed
            return self.make_batch(method, dataset, seed, step, worker)

        self.patches = [
            mock.patch.object(loop, "make_batch", make_batch),
            mock.patch.object(loop.CheckpointWriter, "due", lambda writer: writer.wait() or writer.enabled),
        ]
        for patch in self.patches:
            patch.start()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> bool:
        for patch in self.patches:
            patch.stop()
        return kind is Killed


def answers(command: str) -> tuple[int, dict[str, Any], str]:
    """How a command ends, what it found, and what it said beside that. Times are left out."""
    if command == REFERENCE:
        said = mock.Mock(write=mock.Mock())
        with mock.patch("sys.stderr", said):
            score = score_teacher(TeacherConfig(path="good"), EvaluationConfig(samples=40), Paths.at("store"), 2)
        return 0, {"distance": score.distance}, "".join(call.args[0] for call in said.write.call_args_list)
    called = tract_ray(*command.split())
    if called.status:
        return called.status, {}, called.err
    found = json.loads(called.out)
    names = ("distance", "distances", "mu_i", "samples", "steps", "key", "fingerprint", "images")
    return 0, {name: found[name] for name in names if name in found}, called.err


def restore(place: Path) -> None:
    """The folder as it was, at the place where it was: runs know where their teacher lies."""
    os.chdir(place.parent)
    shutil.rmtree(place)
    shutil.copytree(place.with_name("copy"), place)
    os.chdir(place)


def check(place: Path, number: int, kind: str, seed: int) -> str:
    """What is wrong with how the command ends after this damage; nothing, if all is well."""
    pattern, command, again = FILES[number]
    restore(place)
    if again and (command not in undisturbed or command == LOOK):
        undisturbed[command] = answers(command)[1]
        if command != LOOK:  # it is of files of these times
            restore(place)
    file = sorted(place.glob(pattern))[-1]
    damage(file, kind, seed)
    before = content(place)
    try:
        status, found, said = answers(command)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    named = "damaged" in said and (file.name in said or file.parent.name in said)
    if not again:
        line = status == 2 and re.fullmatch(r"error: [^\n]*\n", said)
        return "" if line and named and content(place) == before else f"{status}, {said!r}"
    known = undisturbed[command]
    return "" if (status, found) == (0, known) and known and named else f"{status}, {found}, {known}, {said!r}"


def wrongs(place: Path, kinds: dict[int, list[str]], seed: int) -> list[str]:
    torch.set_num_threads(1)
    found = []
    for number, names in kinds.items():
        for kind in names:
            wrong = check(place, number, kind, seed)
            found += [f"{kind}, seed {seed}, {FILES[number][0]}, {FILES[number][1][:20]}: {wrong}"] if wrong else []
    return found


def test_a_damage_of_every_file(whole: Path) -> None:
    """All kinds come up, each with other files; all pairs are slow."""
    kinds = {n: [DAMAGES[n % len(DAMAGES)]] for n in range(len(FILES))}
    found = wrongs(whole, kinds, 0)
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_every_damage_of_every_file(whole: Path, seed: int) -> None:
    kinds = {number: list(DAMAGES) for number in range(len(FILES))}
    found = wrongs(whole, kinds, seed)
    assert not found, "\n".join(found)
