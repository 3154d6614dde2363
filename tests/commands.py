"""Commands as a person runs them, in this process: the same code, without the seconds that imports take."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from unittest import mock


@dataclass(frozen=True)
class Called:
    """How a command ended."""

    status: int
    out: str
    err: str


def call(
    main: Callable[[], object],
    name: str,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    out: IO[str] | None = None,
) -> Called:
    """`name arguments…`, whose program is `main`; its output goes to `out` where one is given (a terminal)."""
    said, err, status = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", [name, *map(str, arguments)]),
        mock.patch.dict(os.environ, env or {}),
        contextlib.redirect_stdout(out or said),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Called(status, said.getvalue(), err.getvalue())


def call_script(script: Path, *arguments: object, env: Mapping[str, str] | None = None) -> Called:
    """`python script arguments…`."""
    return call(lambda: runpy.run_path(str(script), run_name="__main__"), str(script), *arguments, env=env)


def tract_ray(*arguments: object, env: Mapping[str, str] | None = None, out: IO[str] | None = None) -> Called:
    """`tract-ray arguments…`."""
    from tract_ray.cli.command import main

    return call(main, "tract-ray", *arguments, env=env, out=out)


def run(*arguments: object) -> str:
    """What `tract-ray arguments…` says, which must succeed."""
    called = tract_ray(*arguments)
    assert called.status == 0, called.err
    return called.out


def refusal(*arguments: object) -> str:
    """The one line with which `tract-ray arguments…` must end, without the word in front."""
    called = tract_ray(*arguments)
    assert called.status == 2, called
    (line,) = called.err.splitlines()
    return line.removeprefix("error: ")


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: files with their bytes, folders with None."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
