"""What is typed on a sweep's command line, and what runs it makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tract_ray.sweep.options import Options
from tract_ray.training.paths import absolute_dataset


def test_paths_are_absolute_where_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run in a folder of Ray's, where a relative path leads nowhere."""
    monkeypatch.chdir(tmp_path)
    options = Options(dataset="folder:photos@8", teacher="mine")
    assert (options.dataset, options.teacher) == (f"folder:{tmp_path}/photos@8", str(tmp_path / "mine"))
    assert options.taught().path == str(tmp_path / "mine")
    assert (Options().dataset, Options().teacher) == ("digits", None)
    assert absolute_dataset("folder:~/photos@8") == f"folder:{Path.home()}/photos@8"
