"""Ships the records of running trials to MLflow, from files, in the background."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tract_ray.files import DamagedError, made_again, read_json, write_json
from tract_ray.tracking.redaction import error_line, redact
from tract_ray.tracking.store import MlflowStore, is_reachable
from tract_ray.training.record import read_lines

CURSOR, RUNNING = "shipped.json", "RUNNING"
Line = Mapping[str, Any]


@dataclass
class _Watched:
    folder: Path
    trial: str
    params: Mapping[str, Any]
    run_id: str | None = None
    seen: int = 0  # lines told to the listener
    sent: int = 0  # lines that MLflow has
    status: str = RUNNING  # of the MLflow run, as far as it was told
    ended: str | None = None  # what it is to become
    done: bool = False
    values: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Shipper:
    """Tails the record in every watched folder; one MLflow run each, a child of `parent`.

    A server that is away delays shipping and loses nothing: what was sent is counted in the run's folder
    (`shipped.json`), the rest stays in the record. `listener(trial, line)` hears every new line, sent or not.
    """

    def __init__(
        self,
        store: MlflowStore,
        sweep: str,
        parent: str | None,
        listener: Callable[[str, Line], None] | None = None,
        interval: float = 1.0,
    ) -> None:
        self.store, self.sweep, self.parent, self.listener = store, sweep, parent, listener
        self.interval = interval
        self.trouble: str | None = None
        self.damage: str | None = None
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()
        self._passing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="mlflow-shipper", daemon=True)

    def start(self) -> Shipper:
        """Begin to ship; returns itself."""
        self._thread.start()
        return self

    def watch(self, trial: str, folder: Path, params: Mapping[str, Any]) -> None:
        """Follow the record in `folder` as the run `trial`."""
        with self._lock:
            if trial in self._watched:
                return
            watched = _Watched(folder, trial, params)
            cursor = self._cursor(folder / CURSOR)
            if cursor:
                if redact(cursor["uri"]) == redact(self.store.uri):  # whoever asks, it is the same store
                    watched.run_id, watched.sent, watched.status = cursor["run_id"], cursor["sent"], cursor["status"]
                if cursor["uri"] != redact(cursor["uri"]):  # of a version that wrote passwords down
                    write_json(folder / CURSOR, {**cursor, "uri": redact(cursor["uri"])}, private=True)
            self._watched[trial] = watched

    def _cursor(self, file: Path) -> Mapping[str, Any]:
        """What was sent before; nothing where nobody knows: what arrives a second time changes nothing."""
        try:
            return read_json(file, "record") if file.exists() else {}
        except DamagedError as error:
            print(made_again(file, error), file=sys.stderr)
            return {}

    def end(self, trial: str, status: str, values: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Say that `trial` is over: its run is closed with `status` once everything has been sent."""
        with self._lock:
            watched = self._watched[trial]
            watched.values, watched.tags, watched.ended = dict(values), dict(tags), status

    def open_trials(self) -> list[str]:
        """Trials that are watched and were not said to be over."""
        return [w.trial for w in self._watched.values() if w.ended is None]

    def close(self, deadline: float = 30.0) -> bool:
        """Ship what is left, until nothing has moved for `deadline` seconds. False where something was not sent."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=deadline)
        until, before = time.monotonic() + deadline, -1
        while True:
            self._pass()
            moved = sum(w.sent + w.done for w in self._watched.values())
            if moved > before:
                before, until = moved, time.monotonic() + deadline
            pending = [w for w in self._watched.values() if not w.done and (w.ended or self._unsent(w))]
            if not pending or time.monotonic() > until:
                return not pending and not self.damage
            time.sleep(min(1.0, deadline / 10))

    def _loop(self) -> None:
        while not self._stop.wait(self.interval):
            self._pass()

    def _unsent(self, watched: _Watched) -> bool:
        return len(self._lines(watched)) > watched.sent

    def _lines(self, watched: _Watched) -> list[dict[str, Any]]:
        """The record; nothing of a damaged one, which keeps the other runs from nothing."""
        try:
            return read_lines(watched.folder)
        except DamagedError as error:
            self.damage = self.damage or str(error)
            return []

    def _pass(self) -> None:
        with self._passing:
            trouble = None
            for watched in [w for w in list(self._watched.values()) if not w.done]:
                ended = watched.ended  # before its lines are read: what `end` is called for has been written by then
                lines = self._lines(watched)
                if self.listener:
                    for line in lines[watched.seen :]:
                        self.listener(watched.trial, line)
                # A resumed run rewrites its last lines; they are the same ones, so counting them suffices.
                watched.seen = max(watched.seen, len(lines))
                if trouble and not is_reachable(self.store.uri):
                    continue  # every call would wait for its own timeout
                try:
                    self._ship(watched, lines, ended)
                except Exception as error:  # whatever MLflow raises: the record waits in its file
                    trouble = trouble or error_line(error, self.store.uri)
            self.trouble = trouble or self.damage

    def _ship(self, watched: _Watched, lines: Sequence[Line], ended: str | None) -> None:
        if watched.run_id is None or (watched.status != RUNNING and not ended):
            watched.run_id = self.store.trial_run(self.sweep, watched.trial, self.parent, watched.params)
            watched.status = RUNNING
            self._save_cursor(watched)
        if len(lines) > watched.sent:
            self.store.log_lines(watched.run_id, lines[watched.sent :], watched.folder)
            watched.sent = len(lines)
            self._save_cursor(watched)
        if ended:
            if watched.status != ended:
                self.store.log_values(watched.run_id, watched.values, watched.tags, lines[-1] if lines else None)
                self.store.close(watched.run_id, ended)
                watched.status = ended
                self._save_cursor(watched)
            watched.done = True

    def _save_cursor(self, watched: _Watched) -> None:
        cursor = {
            "uri": redact(self.store.uri),
            "run_id": watched.run_id,
            "sent": watched.sent,
            "status": watched.status,
        }
        write_json(watched.folder / CURSOR, cursor, private=True)
