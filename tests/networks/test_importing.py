"""Files that hold no teacher."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tract_ray.config import InputError
from tract_ray.networks.importing import import_teacher


def test_what_is_no_teacher_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("nothing")
    with pytest.raises(InputError, match="neither an EDM pickle"):
        import_teacher(file)
    with pytest.raises(InputError, match="download it first"):
        import_teacher("gs://bucket/teacher.pkl")
    broken = tmp_path / "broken.pkl"
    broken.write_bytes(pickle.dumps({"ema": 1}, protocol=4)[:-4])
    with pytest.raises(InputError, match=r"broken\.pkl cannot be read"):
        import_teacher(broken)
    broken.write_bytes(pickle.dumps({"ema": 1}, protocol=4))
    with pytest.raises(InputError, match="no network under 'ema'"):
        import_teacher(broken)
