"""Parquet files as the Hugging Face hub has them, and WebDataset's tar files: the same images as their folder."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tract_ray.config import InputError
from tract_ray.data import dataset_fingerprint, dataset_info, load_dataset

from zips import encode, picture  # isort: skip (beside this file)

COUNT = 7
LABELS = [i % 3 for i in range(COUNT)]
IMAGES = [encode(picture(i, (10, 8))) for i in range(COUNT)]


@pytest.fixture
def expected(tmp_path: Path) -> list[Any]:
    """Pixels by the folder that holds the same files."""
    folder = tmp_path / "files"
    folder.mkdir()
    for i, content in enumerate(IMAGES):
        (folder / f"{i}.png").write_bytes(content)
    return load_dataset(f"folder:{folder}@8").images.tolist()


def write_parquet(file: Path, rows: range, label: str | None = "label") -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {"image": [{"bytes": IMAGES[i], "path": f"{i}.png"} for i in rows]}
    if label:
        columns[label] = [LABELS[i] for i in rows]
    parquet.write_table(arrow.table(columns), file, row_group_size=2)
    return file


def write_tar(file: Path, rows: range, label: str = "cls") -> Path:
    with tarfile.open(file, "w") as archive:
        for i in rows:
            texts = {"cls": str(LABELS[i]), "json": f'{{"label": {LABELS[i]}}}', "txt": "a caption"}
            for ending, content in (("png", IMAGES[i]), (label, texts[label].encode())):
                member = tarfile.TarInfo(f"{i:05d}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file


def test_parquet(tmp_path: Path, expected: list[Any]) -> None:
    folder = tmp_path / "hub"
    write_parquet(folder / "data" / "train-00001-of-00002.parquet", range(4, COUNT))
    write_parquet(folder / "data" / "train-00000-of-00002.parquet", range(4))
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", range(2))
    data = load_dataset(f"folder:{folder}@8")
    assert (data.images.tolist(), data.labels.tolist()) == (expected, LABELS)
    assert data.num_classes == dataset_info(f"folder:{folder}@8").num_classes == 3
    assert load_dataset(f"folder:{folder}@8,unlabelled").num_classes == 1
    alone = write_parquet(tmp_path / "alone.parquet", range(COUNT), None)
    assert load_dataset(f"folder:{alone}@8").images.tolist() == expected


@pytest.mark.parametrize("label", ["cls", "json"])
def test_webdataset(tmp_path: Path, expected: list[Any], label: str) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    write_tar(folder / "000.tar", range(3), label)
    write_tar(folder / "001.tar", range(3, COUNT), label)
    data = load_dataset(f"folder:{folder}@8")
    assert (data.images.tolist(), data.labels.tolist(), data.num_classes) == (expected, LABELS, 3)
    plain = write_tar(tmp_path / "plain.tar", range(COUNT), "txt")
    data = load_dataset(f"folder:{plain}@8")
    assert (data.images.tolist(), data.num_classes, dict(data.skipped)) == (expected, 1, {"not an image": COUNT})


def test_the_same_content_is_the_same_data(tmp_path: Path) -> None:
    tar, parquet = write_tar(tmp_path / "a.tar", range(COUNT)), write_parquet(tmp_path / "a.parquet", range(COUNT))
    assert dataset_fingerprint(f"folder:{tar}@8") == dataset_fingerprint(f"folder:{parquet}@8")


def test_what_is_wrong_with_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"a\.tar is not a readable tar file"):
        load_dataset(f"folder:{tmp_path / 'a.tar'}@8")
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"a\.parquet is not a readable parquet file"):
        load_dataset(f"folder:{tmp_path / 'a.parquet'}@8")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"which need pyarrow: pip install 'tract-ray\[data\]'"):
        load_dataset(f"folder:{tmp_path / 'a.parquet'}@8")
