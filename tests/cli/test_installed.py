"""An installed package: a wheel that was built from a checkout, without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from services import ROOT

SCRIPTS = sorted(file.name for file in (ROOT / "sweeps").glob("*.py"))


@pytest.fixture(scope="module")
def installed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel holds, unpacked as `pip install` would."""
    folder: Path = tmp_path_factory.mktemp("wheel")
    source = Path(shutil.copytree(checkout, folder / "source"))
    for name in ("setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('..'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    shutil.rmtree(source)
    return folder / "site"


def called(installed: Path, cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`tract-ray arguments…` of the installed package, somewhere else."""
    command = [sys.executable, "-P", "-m", "tract_ray.cli", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_package_and_the_sweeps(installed: Path) -> None:
    assert sorted(file.name for file in (installed / "tract_ray" / "sweeps").iterdir()) == SCRIPTS
    assert (installed / "tract_ray" / "py.typed").is_file()
    assert (installed / "tract_ray" / "serving" / "page.html").is_file()
    assert {entry.name for entry in installed.iterdir()} == {"tract_ray", next(installed.glob("*.dist-info")).name}


def test_a_sweep_by_its_name(installed: Path, tmp_path: Path) -> None:
    done = called(installed, tmp_path, "sweep", "mu_search", "--dry-run", "--trials", "3", "--samples", "12800")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("mu_search: Which self-teacher average mu_s")
    assert f"the sweep would be {tmp_path / 'runs' / 'sweeps'}" in done.stdout
    assert list(tmp_path.iterdir()) == []
