"""Where sweep scripts are, and what they ask; nothing of them is run, and nothing heavy imported."""

from __future__ import annotations

import ast
from pathlib import Path

import tract_ray
from tract_ray.config import InputError, choose, require


def known_scripts() -> dict[str, Path]:
    """The scripts of this package by name: beside it in a checkout, in it where it was installed."""
    package = Path(tract_ray.__file__).parent
    folders = (package / "sweeps", package.parent / "sweeps")
    folder = next((folder for folder in folders if (folder / "mu_search.py").is_file()), folders[0])
    return {file.stem: file for file in sorted(folder.glob("*.py"))}


def find_script(name: str) -> Path:
    """The file of the sweep `name`, or the file that `name` is a path of."""
    path, known = Path(name).expanduser(), known_scripts()
    if path.suffix == ".py" or len(path.parts) > 1:
        require(path.is_file(), "sweep", f"there is no file {path}")
        require(path.suffix == ".py", "sweep", f"{path} is no Python file (.py)")
        return path
    try:
        return known[choose("sweep", name, known)]
    except InputError as error:
        raise InputError(f"{error}, or the path of a script") from None


def question_of(path: Path) -> str:
    """The question that a script asks, read without running it."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or path.stem
    return doc.splitlines()[0]
