"""Damage: what is cached is made again and said, what somebody gave is refused, and no number changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import content_of, tiny_run, without_stages

from tract_ray.config import InputError
from tract_ray.files import read_json
from tract_ray.training import Paths, run_distillation
from tract_ray.training.notes import read_notes
from tract_ray.training.teacher import teacher_folder

Damage = Callable[[bytes], bytes]
RUN = tiny_run()

DAMAGES: dict[str, Damage] = {
    "flipped": lambda b: b[: len(b) // 2] + bytes(x ^ 0x41 for x in b[len(b) // 2 :][:64]) + b[len(b) // 2 + 64 :],
    "flipped at its end": lambda b: b[:-64] + bytes(x ^ 1 for x in b[-64:]),
    "cut": lambda b: b[: len(b) * 2 // 3],
    "empty": lambda b: b"",
    "of another kind": lambda b: b"\x80\x02}q\x00.",
}


@pytest.fixture(scope="module")
def whole(trained: Paths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the run's stages, the run itself beside it."""
    folder: Path = tmp_path_factory.mktemp("whole")
    paths = without_stages(trained, folder)
    run_distillation(RUN, paths, folder / "run")
    return folder


def copied(whole: Path, folder: Path) -> Paths:
    shutil.copytree(whole / "cache", folder / "cache", symlinks=True)
    return Paths(folder / "runs", folder / "cache")


def stage_folder(paths: Paths, number: int) -> Path:
    files = sorted((paths.cache / "stages").glob("*/stage.json"), key=lambda file: read_json(file, "stage")["start"])
    return files[number].parent


@pytest.mark.parametrize("name", ["state.safetensors", "stage.json", "record.jsonl"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stage_is_trained_again(whole: Path, tmp_path: Path, name: str, damage: str) -> None:
    paths = copied(whole, tmp_path)
    stage = stage_folder(paths, 1)
    (stage / name).write_bytes(DAMAGES[damage]((stage / name).read_bytes()))
    run_distillation(RUN, paths, tmp_path / "run")
    again, before = content_of(tmp_path / "run"), content_of(whole / "run")
    assert again["result"].pop("trained") == 480
    assert before["result"].pop("trained") == 960
    assert again == before
    (line,) = read_notes(tmp_path / "run")
    assert f"{stage.name}" in line
    assert "is damaged" in line
    assert "trained again" in line
    assert [folder.name.split(".")[0] for folder in stage.parent.glob("*.damaged")] == [stage.name]
    assert (stage / "state.safetensors").read_bytes() == (
        whole / "cache" / "stages" / stage.name / "state.safetensors"
    ).read_bytes()


def test_a_stage_without_a_picture_is_trained_again(whole: Path, tmp_path: Path) -> None:
    paths = copied(whole, tmp_path)
    stage = stage_folder(paths, 0)
    next((stage / "images").iterdir()).unlink()
    result = run_distillation(RUN, paths, tmp_path / "run")
    assert result.trained == 480
    assert "is damaged or missing" in read_notes(tmp_path / "run")[0]


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "record.jsonl"])
@pytest.mark.parametrize("damage", ["flipped", "empty"])
def test_a_damaged_checkpoint_begins_again(whole: Path, tmp_path: Path, name: str, damage: str) -> None:
    paths = without_stages(copied(whole, tmp_path / "copy"), tmp_path)

    def killed(report: dict[str, float]) -> None:
        if report["samples"] == 720:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_distillation(RUN, paths, tmp_path / "run", report=killed, reuse=False)
    file = tmp_path / "run" / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    run_distillation(RUN, paths, tmp_path / "run", reuse=False)
    assert content_of(tmp_path / "run") == content_of(whole / "run")
    assert "is damaged" in read_notes(tmp_path / "run")[0]


@pytest.mark.parametrize("name", ["result.json", "config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_teacher_or_result_is_one_line(
    whole: Path, trained: Paths, tmp_path: Path, name: str, damage: str
) -> None:
    shutil.copytree(trained.cache / "teachers", tmp_path / "cache" / "teachers")
    paths = Paths(tmp_path / "runs", tmp_path / "cache")
    shutil.copytree(whole / "run", tmp_path / "run")
    folder = tmp_path / "run" if name == "result.json" else teacher_folder(RUN.teacher, paths)
    (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes()))
    with pytest.raises(InputError) as caught:
        run_distillation(RUN, paths, tmp_path / ("run" if name == "result.json" else "new"))
    assert "is damaged" in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
