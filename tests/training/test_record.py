"""The record of a run: what is kept of it, and what is read while it is being written."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from tract_ray.training.record import RECORD, MarkScore, Record, read_lines, read_scores, write_lines


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
    """A score comes back as it was, to the last digit and in its order, and is drawn under the names of its metric."""
    scores = [
        MarkScore("novelty", 10 / 3, 0.1, 2, 4000, "report", {0.9: 1 / 3, 0.1: 2 / 7}, {0.1: 10 / 3}),
        MarkScore("novelty", 5.0, 0.5, 1),
    ]
    record = Record(tmp_path)
    for number, score in enumerate(scores, 1):
        record.metrics(number, {"loss": 1 / number})
        record.score(number, score)
    assert read_scores(tmp_path) == list(enumerate(scores, 1))
    assert list(read_scores(tmp_path)[0][1].distances) == [0.9, 0.1]
    bank = {"novelty/mu_i_0.9": 1 / 3, "novelty/mu_i_0.1": 2 / 7}
    assert read_lines(tmp_path)[1]["metrics"] == {"novelty": 10 / 3, "mu_i_best": 0.1, "steps": 2, **bank}
    write_lines(tmp_path, read_lines(tmp_path)[2:])
    assert [samples for samples, _ in read_scores(tmp_path)] == [2]


def test_mu_i_that_differ_in_the_last_digit_have_names_of_their_own() -> None:
    """As those of long trainings do: 1e-3 and 1e-4 to the power of one in four million steps agree in six digits."""
    mus = [residual ** (1 / 4_000_000) for residual in (1e-3, 1e-4)]
    assert f"{mus[0]:.6g}" == f"{mus[1]:.6g}"
    named = MarkScore("fid", 1.0, mus[0], 1, distances=dict.fromkeys(mus, 1.0)).metrics()
    assert [float(name.removeprefix("fid/mu_i_")) for name in named if name.startswith("fid/mu_i_")] == mus


def test_older_records_say_scores_by_name(tmp_path: Path) -> None:
    marks(tmp_path, 1, 2)
    found = [(samples, s.metric, s.distance, s.mu_i, s.steps) for samples, s in read_scores(tmp_path)]
    assert found == [(1, "fid_digits", 10.0, 0.5, 1), (2, "fid_digits", 5.0, 0.5, 1)]
