"""A record whose folder was moved, renamed or copied is used where it lies now, and nothing goes to the old place."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from commands import content, refusal, run
from mlflow.tracking._tracking_service import utils
from PIL import Image
from services import mlflow_at, wait_until

from tract_ray.config import InputError
from tract_ray.tracking import MlflowStore, mend_moved
from tract_ray.training.record import Record

pytestmark = pytest.mark.cluster
Make = Callable[[str], Path]


@pytest.fixture(autouse=True)
def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow remembers where a run's artifacts lie as long as the process lives; a copy's run has the same number."""
    monkeypatch.setattr(utils, "_artifact_repos_cache", OrderedDict())


@pytest.fixture(scope="module")
def original(store: MlflowStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record with a run, a picture, and a file; and an experiment that someone else has made."""
    folder: Path = tmp_path_factory.mktemp("made") / "a first place"
    shutil.copytree(Path(store.uri.removeprefix("sqlite:///")).parent, folder)  # its tables take seconds
    store = MlflowStore(f"sqlite:///{folder / 'mlflow.db'}", "mu_search")
    run_id = store.trial_run("one", "trial-0000", None, {"lr": 1})
    draw(store, run_id, folder.parent / "run", 64)
    (folder / "note.txt").write_text("as it was")
    store.log_files(run_id, [folder / "note.txt"])
    store.client.create_experiment("theirs", artifact_location=str(folder / "elsewhere"))
    return folder


def draw(store: MlflowStore, run_id: str, folder: Path, samples: int) -> None:
    record = Record(folder, 0)
    record.image(samples, "samples", Image.new("RGB", (20, 10)))
    line = {"samples": samples, "time": 1.0, "image": next(folder.rglob("*.png")).relative_to(folder), "name": "s"}
    store.log_lines(run_id, [line], folder)
    wait_until(
        lambda: f"{samples}" in steps(store, run_id), "the picture does not arrive"
    )  # MLflow sends it by a thread


def steps(store: MlflowStore, run_id: str) -> set[str]:
    """Of all pictures of a run."""
    names = [file.path for file in store.client.list_artifacts(run_id, "images")]
    return {name.split("+")[2] for name in names if name.endswith("+compressed.webp")}


@pytest.fixture
def make(original: Path, tmp_path: Path) -> Make:
    """A copy of the record which says that it lies where `original` no longer is."""

    def copy(name: str) -> Path:
        shutil.copytree(original, tmp_path / name)
        with sqlite3.connect(tmp_path / name / "mlflow.db") as database:
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(original), "/gone"))
        return tmp_path / name

    return copy


def addresses(folder: Path) -> dict[str, str]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        return dict(database.execute("SELECT name, artifact_location FROM experiments").fetchall())


def test_it_is_opened_and_continued(make: Make) -> None:
    folder = make("moved & renamed")
    store = MlflowStore(f"sqlite:///{folder / 'mlflow.db'}", "mu_search")
    run_id = store.trial_run("one", "trial-0000", None, {"lr": 1})
    with mlflow_at(store.uri):
        note = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="note.txt")
    assert Path(note).read_text() == "as it was"
    draw(store, run_id, folder.parent / "run", 128)
    assert not Path("/gone").exists()
    assert steps(store, run_id) == {"64", "128"}
    assert addresses(folder)["theirs"] == "/gone/elsewhere"  # not ours


def test_a_copy_leaves_the_original_alone(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "copy")
    before = content(original)
    store = MlflowStore(f"sqlite:///{tmp_path / 'copy' / 'mlflow.db'}", "mu_search")
    draw(store, store.trial_run("one", "trial-0000", None, {}), tmp_path / "run", 256)
    assert content(original) == before
    assert addresses(tmp_path / "copy")["mu_search"] == str(tmp_path / "copy" / "mlartifacts" / "mu_search")


def test_another_path_to_the_same_file_and_a_database_alone_stay(original: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(original)
    assert mend_moved(f"sqlite:///{tmp_path / 'link' / 'mlflow.db'}") == 0
    (tmp_path / "alone").mkdir()
    shutil.copy(original / "mlflow.db", tmp_path / "alone")
    assert mend_moved(f"sqlite:///{tmp_path / 'alone' / 'mlflow.db'}") == 0
    assert mend_moved(f"sqlite:///{tmp_path / 'none.db'}") == mend_moved("http://127.0.0.1:5000") == 0


def test_the_command(make: Make) -> None:
    folder = make("moved")
    named = f"sqlite:///{folder / 'mlflow.db'}"
    place = folder / "mlartifacts"
    assert run("record", "move", "--mlflow-uri", named).endswith(f" addresses now point to {place}\n")
    assert run("record", "move", "--mlflow-uri", named) == f"{folder / 'mlflow.db'}: nothing to mend\n"
    assert refusal("record", "move", "--mlflow-uri", "http://127.0.0.1:5000").startswith("mlflow-uri: only the addr")
    assert refusal("record", "move", "--mlflow-uri", f"sqlite:///{folder / 'no.db'}").endswith("no.db does not exist")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_what_cannot_be_written_is_said(make: Make) -> None:
    folder = make("sealed")
    (folder / "mlflow.db").chmod(0o400)
    with pytest.raises(InputError, match="was moved, and its addresses cannot be mended"):
        mend_moved(f"sqlite:///{folder / 'mlflow.db'}")
