"""A record that was moved: MLflow keeps absolute addresses of artifacts, which are mended in its database file.

Where a server keeps the record its addresses are `mlflow-artifacts:/…`, and nothing needs to be mended.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tract_ray.config import InputError

SQLITE = "sqlite:///"
ARTIFACTS = "mlartifacts"
"""The folder beside a database file that holds its artifacts, in one folder for each experiment."""
_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


def artifacts_of(database: Path, experiment: str) -> str:
    """Where an experiment's artifacts lie: beside the database file, wherever the current folder is."""
    return str(database.absolute().parent / ARTIFACTS / experiment)


def mend_moved(uri: str) -> int:
    """Point the addresses of a moved or copied record to where it lies now; returns how many were changed.

    Only those below `mlartifacts` of another folder are touched, and only where the artifacts came along: one that
    another path to this same file made stays, and so does one of artifacts that were left behind. Raises `InputError`
    where the file cannot be written.
    """
    database = Path(uri.removeprefix(SQLITE)).absolute()
    if not uri.startswith(SQLITE) or not database.is_file():
        return 0
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            moved = _moved(connection, database)
            return _mend(connection, moved) if moved else 0
    except sqlite3.OperationalError as error:
        raise InputError(f"mlflow-uri: {database} was moved, and its addresses cannot be mended ({error})") from None
    except sqlite3.DatabaseError:  # no database: whoever opens it says so
        return 0


def _moved(connection: sqlite3.Connection, database: Path) -> dict[str, str]:
    """Folders of experiments as the database has them, and where they are now."""
    if not _columns(connection, "experiments"):
        return {}
    found = {}
    for name, location in connection.execute("SELECT name, artifact_location FROM experiments"):
        old, new = str(location or ""), artifacts_of(database, str(name))
        tail = f"/{ARTIFACTS}/{name}"
        if not old.endswith(tail) or old == new:
            continue
        before = Path(old.removesuffix(tail).removeprefix("file://"))
        same = (before / database.name).exists() and (before / database.name).samefile(database)
        left_behind = Path(old.removeprefix("file://")).is_dir() and not Path(new).is_dir()
        if not (same or left_behind):
            found[old] = new
    return found


def _mend(connection: sqlite3.Connection, moved: dict[str, str]) -> int:
    """All of it or, where the process dies, nothing."""
    changed = 0
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for table, columns in _ADDRESSES.items():
            for column in [name for name in columns if name in _columns(connection, table)]:
                for old, new in moved.items():
                    changed += connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    ).rowcount
    return changed


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
