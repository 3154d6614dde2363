"""The comparison with the authors' program, as far as it goes without a clone of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tract_ray.benchmarks.authors import compare
from tract_ray.config import InputError


@pytest.mark.parametrize(("program", "says"), [("vp", "it has no tc_distill.py"), ("ve", "program: unknown 've'")])
def test_what_is_no_clone_is_one_line(program: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says) as caught:
        compare(tmp_path, program)
    assert "\n" not in str(caught.value)
