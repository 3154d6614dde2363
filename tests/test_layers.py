"""The rule of the layers: a room imports only rooms above it; the core runs without ray, mlflow and optuna."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tract_ray

PACKAGE = Path(tract_ray.__file__).parent
EVERYWHERE = {"config", "files", "__version__"}
MAY_IMPORT: dict[str, set[str]] = {
    "diffusion": set(),
    "networks": {"diffusion"},
    "data": set(),
    "distillation": {"diffusion", "networks"},
    "evaluation": {"diffusion", "data"},
    "training": {"diffusion", "networks", "data", "distillation", "evaluation"},
}
CORE = tuple(MAY_IMPORT)[:5]
MAY_IMPORT["tracking"] = {*MAY_IMPORT, "terminal"}
MAY_IMPORT["tuning"] = {*MAY_IMPORT, "terminal"}
CLUSTER = ("ray", "mlflow", "optuna")


def modules(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Dotted names of every module that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_of(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("tract_ray.")}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_rooms_above_it(room: str) -> None:
    wrong = {
        f"{file.relative_to(PACKAGE)}: {other}"
        for file in modules(room)
        for other in rooms_of(imported(file)) - MAY_IMPORT[room] - EVERYWHERE - {room}
    }
    assert not wrong


@pytest.mark.parametrize("room", CORE)
def test_the_core_names_no_cluster_package(room: str) -> None:
    wrong = {
        f"{file.relative_to(PACKAGE)}: {name}"
        for file in modules(room)
        for name in imported(file)
        if name.split(".")[0] in CLUSTER
    }
    assert not wrong


def test_the_shared_files_import_no_room() -> None:
    assert rooms_of(imported(PACKAGE / "config.py")) == set()
    assert rooms_of(imported(PACKAGE / "files.py")) <= {"config"}


def test_ray_is_in_one_file_of_training() -> None:
    files = {file.name for file in modules("training") for name in imported(file) if name.split(".")[0] == "ray"}
    assert files <= {"ray_workers.py"}


def test_every_room_is_known() -> None:
    """A new room must say what it may import."""
    assert {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")} <= set(MAY_IMPORT)


def test_the_core_imports_without_the_cluster_packages() -> None:
    names = [
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for room in CORE
        for file in modules(room)
    ]
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({CLUSTER!r}))
for name in {names!r}:
    importlib.import_module(name)
print(len({names!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(names) > 25
