"""The comparison with the authors' program, as far as it goes without a clone of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tract_ray.benchmarks.authors import compare
from tract_ray.config import InputError


@pytest.mark.parametrize(
    ("program", "files", "says"),
    [
        ("vp", (), "is no clone of apple/ml-tract: there is no .*/tc_distill.py"),
        ("edm", ("tc_distill_edm.py", "lib/train.py"), "its submodule is missing .*edm/dnnlib/util.py"),
        ("ve", (), "program: unknown 've'"),
    ],
)
def test_what_is_no_clone_is_one_line(program: str, files: tuple[str, ...], says: str, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(InputError, match=says) as caught:
        compare(tmp_path, program)
    assert "\n" not in str(caught.value)
