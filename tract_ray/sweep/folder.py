"""A sweep's folder: who may write to it, whether a resumed sweep is still the same, and how long it has taken."""

from __future__ import annotations

import fcntl
import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from tract_ray.analysis.rows import read_rows
from tract_ray.config import InputError, config_hash, flatten, require, to_dict
from tract_ray.files import DamagedError, made_again, open_lock, read_json, write_json
from tract_ray.search.sealed import REMEDY, read_study
from tract_ray.search.space import anchored
from tract_ray.search.study import extended
from tract_ray.sweep.definition import Sweep
from tract_ray.training import Paths

# A resumed sweep may be given more trials or another budget; its seed is compared with the run's.
EXTENDABLE = ("search.trials", "search.seed", "search.budget", "search.budget.images", "search.budget.seconds")

LATER = ("anchors", "data")  # what sweeps of older versions did not remember


@contextmanager
def locked(sweep: Sweep) -> Iterator[None]:
    """One driver a sweep at a time; the lock dies with its process."""
    try:
        sweep.folder.mkdir(parents=True, exist_ok=sweep.resume)
        file = open_lock(sweep.folder / ".lock")
    except FileExistsError:  # another driver was quicker
        raise InputError(f"name: {sweep.name!r} is taken; add --resume, or choose another name") from None
    except OSError as error:
        raise InputError(f"storage: {sweep.folder} is not writable ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"name: another process is running the sweep {sweep.name!r}") from None
        yield


def remember(sweep: Sweep) -> str:
    """Write what the sweep is, or check that a resumed one is still the same.

    Returns what more trials make of it, where that is not what a sweep that was begun with them would be.
    """
    now = {
        "experiment": sweep.experiment,
        "run": flatten(sweep.run),
        "space": sweep.space.describe(),
        "anchors": anchored(sweep.space),
        "search": {k: v for k, v in flatten(sweep.search, "search.").items() if k not in EXTENDABLE},
        "data": {"data set's content": sweep.measured["content"]},
    }
    file, trials, note = sweep.folder / "sweep.json", sweep.search.trials, ""
    own = uuid.uuid4().hex
    if file.exists():
        before = read_json(file, "name")
        begun, own = before.get("trials", trials), before.get("id", "")
        require(
            sweep.space.count is None or begun == trials,
            "trials",
            f"{sweep.name} is a population of {begun} trials, and with {trials} its members would be others; begin "
            "another sweep, which finds what both share",
        )
        note = extended(sweep.search, begun) if trials > begun else ""
        known = {**now, **{part: {} for part in LATER if part not in before}}
        old, new = (
            {**b["run"], **b["space"], **b["search"], "experiment": b["experiment"]}
            | {name: value for part in LATER for name, value in b.get(part, {}).items()}
            for b in (before, json.loads(json.dumps(known)))
        )
        changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
        require(
            not changed,
            "resume",
            f"{sweep.name} was started with other settings: "
            + "; ".join(f"{k} was {old.get(k)}, is {new.get(k)}" for k in changed[:5]),
        )
    more = {"id": own, "trials": trials, "config": to_dict(sweep.run), "hash": config_hash(sweep.run)}
    write_json(file, {**now, **more}, private=True)
    return note


def check_kept(sweep: Sweep) -> None:
    """Raise `InputError` where what a resumed sweep found so far is damaged: before any machine is asked for."""
    file = sweep.folder / "study.db"
    if file.exists():
        try:
            read_rows(read_study(file, sweep.name), sweep.folder / "trials")
        except DamagedError as error:
            raise DamagedError(f"{error}; {REMEDY}") from None


def identity(sweep: Sweep) -> str:
    """The sweep's own id, by which its runs are found in MLflow; "" for one that was begun before there were ids."""
    return str(read_json(sweep.folder / "sweep.json", "name").get("id", ""))


def add_wall_time(sweep: Sweep, seconds: float) -> float:
    """Wall time of the sweep, that of earlier drivers which came to an end included."""
    file = sweep.folder / "clock.json"
    try:
        total = seconds + (read_json(file, "storage")["seconds"] if file.exists() else 0.0)
    except DamagedError as error:  # no reason to fail after all the work
        total = seconds
        print(made_again(file, error, "begun again"), file=sys.stderr)
    write_json(file, {"seconds": total})
    return total


def newest(paths: Paths, experiment: str) -> str:
    """The name of the sweep of this experiment that was touched last."""
    files = (paths.storage / "sweeps").glob("*/sweep.json")
    own = [file for file in files if read_json(file, "resume").get("experiment") == experiment]
    if not own:
        raise InputError(f"resume: there is no {experiment} sweep in {paths.storage / 'sweeps'}")
    return max(own, key=lambda file: file.stat().st_mtime).parent.name
