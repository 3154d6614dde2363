"""The record of a run: what is kept of it, and what is read while it is being written."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from tract_ray.training.record import RECORD, Record, read_lines, scored_lines, write_lines


def marks(folder: Path, *numbers: int, keep: int = 0) -> Record:
    """A line of losses and one of scores at each of `numbers`, after the `keep` lines that are there."""
    record = Record(folder, keep)
    for number in numbers:
        record.metrics(number, {"loss": 1 / number})
        record.metrics(number, {"fid_digits": 10.0 / number, "mu_i_best": 0.5, "steps": 1})
    return record


def test_a_line_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    assert read_lines(tmp_path) == []
    marks(tmp_path, 1, 2)
    whole = read_lines(tmp_path)
    assert [line["samples"] for line in whole] == [1, 1, 2, 2]
    with (tmp_path / RECORD).open("a") as file:
        file.write('{"samples": 3, "met')
    assert read_lines(tmp_path) == whole


def test_a_record_is_cut_back_and_continued(tmp_path: Path) -> None:
    marks(tmp_path, 1, 2, 3)
    kept = read_lines(tmp_path)[:3]
    record = marks(tmp_path, 5, keep=3)
    assert record.lines == 5
    assert read_lines(tmp_path)[:3] == kept
    assert [line["samples"] for line in read_lines(tmp_path)] == [1, 1, 2, 5, 5]


def test_a_kill_while_it_is_cut_back_loses_nothing(tmp_path: Path) -> None:
    marks(tmp_path, 1, 2)
    before = read_lines(tmp_path)
    with mock.patch.object(Path, "replace", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        Record(tmp_path, 3)
    assert read_lines(tmp_path) == before


def test_scores(tmp_path: Path) -> None:
    marks(tmp_path, 1, 2)
    assert scored_lines(tmp_path) == [
        {"samples": 1, "distance": 10.0, "mu_i": 0.5},
        {"samples": 2, "distance": 5.0, "mu_i": 0.5},
    ]
    write_lines(tmp_path, read_lines(tmp_path)[2:])
    assert [score["samples"] for score in scored_lines(tmp_path)] == [2]
