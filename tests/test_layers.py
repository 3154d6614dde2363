"""The rule of the layers: a room imports only rooms above it; what names ray, mlflow and optuna is where it says."""

from __future__ import annotations

import ast
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import tract_ray

PACKAGE = Path(tract_ray.__file__).parent
EVERYWHERE = ("config", "disk", "files", "network", "stopping", "terminal")
CORE = ("diffusion", "networks", "data", "distillation", "evaluation")
RUN = (*CORE, "training")
SEARCH = (*RUN, "search")
RECORD = (*SEARCH, "tracking", "analysis")
SWEEP = (*RECORD, "cluster", "sweep")
# Each room, and the rooms that it may import.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "config": (),
    "stopping": (),
    "disk": ("config", "stopping"),
    "files": ("config", "disk"),
    "terminal": ("config", "disk", "files", "stopping"),
    "network": (),
    "diffusion": (),
    "networks": ("diffusion",),
    "data": (),
    "distillation": ("diffusion", "networks"),
    "evaluation": ("diffusion", "data"),
    "training": CORE,
    "search": RUN,
    "tracking": RUN,
    "analysis": (*SEARCH, "tracking"),
    "cluster": SEARCH,
    "sweep": (*RECORD, "cluster"),
    "benchmarks": SWEEP,
    "api": RUN,
    "serving": (*RUN, "api"),
    "cli": (*SWEEP, "benchmarks", "api", "serving"),
}
# Each package that not every machine has, and the rooms that may name it.
NAMED_BY: dict[str, tuple[str, ...]] = {
    "ray": ("cluster",),
    "mlflow": ("tracking", "analysis", "sweep", "benchmarks", "cli"),
    "optuna": ("search", "analysis", "cluster", "sweep", "benchmarks", "cli"),
}


def modules(room: str) -> list[Path]:
    file = PACKAGE / f"{room}.py"
    return [file] if file.is_file() else sorted((PACKAGE / room).rglob("*.py"))


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
    return {name.split(".")[1] for name in names if name.startswith("tract_ray.")} - {"__version__"}


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_the_table_has_no_circle_and_no_arrow_upwards() -> None:
    order = list(MAY_IMPORT)
    for room, others in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(room) for other in others)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_rooms_above_it(room: str) -> None:
    allowed = {*MAY_IMPORT[room], room, *(EVERYWHERE if room not in EVERYWHERE else ())}
    wrong = {
        f"{file.relative_to(PACKAGE)}: {other}"
        for file in modules(room)
        for other in rooms_of(imported(file)) - allowed
    }
    assert not wrong


@pytest.mark.parametrize("package", NAMED_BY)
def test_a_package_is_named_only_where_it_may_be(package: str) -> None:
    wrong = {
        f"{file.relative_to(PACKAGE)}: {name}"
        for room in MAY_IMPORT
        if room not in NAMED_BY[package]
        for file in modules(room)
        for name in imported(file)
        if name.split(".")[0] == package
    }
    assert not wrong


def test_every_room_is_known() -> None:
    """A new room must say what it may import."""
    rooms = {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")}
    files = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}
    assert rooms | files == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_module_imports_itself_in_a_circle(room: str) -> None:
    """Modules of one room form no circle either: each can be read before those that use it."""
    own = {name_of(file): imported(file) for file in modules(room)}
    arrows = {
        name: {other for other in own if other != name and any(n == other or n.startswith(f"{other}.") for n in names)}
        for name, names in own.items()
        if not name.endswith(f".{room}")  # the package itself collects names
    }
    packages = {name for name in own if any(other.startswith(f"{name}.") for other in own)}
    seen: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = (*path[path.index(name) :], name)
            assert not circle, " -> ".join(a for a, _ in pairwise((*circle, "")))
        if name not in seen:
            for other in arrows.get(name, set()) - packages:
                visit(other, (*path, name))
            seen[name] = 1

    for name in arrows:
        visit(name, ())


def imports_without(rooms: tuple[str, ...], absent: tuple[str, ...]) -> None:
    names = [name_of(file) for room in rooms for file in modules(room)]
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({absent!r}))
for name in {names!r}:
    importlib.import_module(name)
print(len({names!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(names) > 5


def test_a_run_imports_without_the_cluster_packages() -> None:
    imports_without((*EVERYWHERE, *RUN), ("ray", "mlflow", "optuna"))


def test_the_search_and_the_analysis_import_without_ray() -> None:
    imports_without(("search", "tracking", "analysis"), ("ray",))


def test_the_search_imports_without_mlflow() -> None:
    imports_without(("search",), ("ray", "mlflow"))


def test_no_file_is_longer_than_300_lines() -> None:
    """A file holds one idea; what grows beyond this has two."""
    files = [*PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]
    lengths = {str(file): len(file.read_text().splitlines()) for file in files}
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > 300} == {}
