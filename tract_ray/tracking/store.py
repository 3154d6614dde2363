"""The MLflow server (or its database file), with runs that are found again instead of made twice."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from ssl import SSLError
from typing import Any
from urllib.parse import ParseResult, urlparse

from tract_ray import network
from tract_ray.config import InputError, require
from tract_ray.files import require_writable
from tract_ray.tracking.logged_model import log_student
from tract_ray.tracking.moved import SQLITE, artifacts_of, mend_moved
from tract_ray.tracking.redaction import error_line, redact

# A call must not hold a sweep for MLflow's own four minutes of retries: the shipper keeps what could not be sent.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

SWEEP_TAG, ID_TAG, TRIAL_TAG = "tract_ray.sweep", "tract_ray.sweep_id", "tract_ray.trial"
PARENT_TAG = "mlflow.parentRunId"
MAX_PARAM = 6000


def tracking_uri(given: str | None, project: Path) -> str:
    """`given`, `MLFLOW_TRACKING_URI`, or a database file `mlflow.db`; a relative file is meant in `project`."""
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    _parsed(uri)
    return f"{SQLITE}{project / uri.removeprefix(SQLITE)}" if uri.startswith(SQLITE) else uri


def ui_command(uri: str, experiment_id: str = "") -> str:
    """The one command (or address) that shows the record; with an experiment, also the page of its runs.

    MLflow's own way there ends at an overview of chat traces, so the address names the kind of pages. Credentials
    are left out: whoever opens it fills in theirs.
    """
    uri = redact(uri)
    page = f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning" if experiment_id else ""
    if uri.startswith("http"):
        return uri.rstrip("/") + page
    # Without an activated environment the program is found beside its Python only.
    program = "mlflow" if shutil.which("mlflow") else shlex.quote(str(Path(sys.executable).parent / "mlflow"))
    command = f"{program} ui --host 127.0.0.1 --backend-store-uri {shlex.quote(uri)}"
    return f"{command}  # and open http://127.0.0.1:5000{page}" if page else command


def _parsed(uri: str) -> ParseResult:
    """The parts of an address that can be one, else an `InputError`."""
    named = "mlflow-uri"
    try:
        parsed = urlparse(uri)
        _ = parsed.port  # parsed when it is read
    except ValueError:  # its text quotes what stands where a port should, which may be half a password
        raise InputError(
            f"{named}: {redact(uri)} has no valid host and port (a / or # of a password is written %2F, %23)"
        ) from None
    known = parsed.scheme in ("http", "https", "sqlite", "postgresql", "mysql", "mssql") or "+" in parsed.scheme
    example = "(examples: http://127.0.0.1:5000, sqlite:///mlflow.db)"
    require(known, named, f"{redact(uri)!r} is no server address and no database {example}")
    missing = not parsed.hostname if parsed.scheme.startswith("http") else uri.rstrip("/") == f"{parsed.scheme}:"
    require(not missing, named, f"{redact(uri)!r} names no host and no file {example}")
    return parsed


def check_reachable(uri: str) -> None:
    """Raise a one-line `InputError` where nothing answers at `uri`; seconds, not MLflow's minutes."""
    parsed = _parsed(uri)
    if parsed.scheme in ("http", "https"):
        try:
            _ask(parsed)
        except (OSError, HTTPException) as error:
            raise InputError(
                f"mlflow-uri: nothing answers at {redact(uri)} ({redact(str(error), uri)}); start the server, "
                "or leave the option out"
            ) from None
        return
    if parsed.scheme.startswith("postgresql") and parsed.hostname:
        try:  # whether it speaks TLS, which every version answers with a letter
            network.first_answer(parsed.hostname, parsed.port or 5432, b"\0\0\0\x08\x04\xd2\x16\x2f")
        except OSError as error:
            raise InputError(f"mlflow-uri: nothing answers at {redact(uri)} ({redact(str(error), uri)})") from None
    if parsed.scheme == "sqlite":
        require_writable(Path(uri.removeprefix(SQLITE)).absolute().parent, "mlflow-uri")


def _ask(parsed: ParseResult) -> None:
    """Hear any answer of a server, by HTTP. Raises `OSError` where it is silent, `HTTPException` for another kind."""
    connect = HTTPSConnection if parsed.scheme == "https" else HTTPConnection
    connection = connect(parsed.hostname or "", parsed.port, timeout=network.SECONDS)
    try:
        connection.request("GET", "/health")
        connection.getresponse()
    except SSLError:  # it answers; whether its certificate is believed is MLflow's to say
        pass
    finally:
        connection.close()


def is_reachable(uri: str) -> bool:
    """Whether something answers at `uri`."""
    try:
        check_reachable(uri)
    except InputError:
        return False
    return True


class MlflowStore:
    """One experiment of one tracking store."""

    def __init__(self, uri: str, experiment: str) -> None:
        check_reachable(uri)
        if uri.startswith(SQLITE):
            Path(uri.removeprefix(SQLITE)).absolute().parent.mkdir(parents=True, exist_ok=True)
            mend_moved(uri)
        import mlflow
        from mlflow import MlflowClient

        for chatty in ("mlflow", "mlflow.store.db.utils", "alembic"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        self.uri, self.experiment = uri, experiment
        self._mlflow = mlflow
        try:
            self.client = MlflowClient(tracking_uri=uri)
            found = self.client.get_experiment_by_name(experiment)
            self.experiment_id = found.experiment_id if found else self._create(experiment)
        except Exception as error:
            raise InputError(f"mlflow-uri: {redact(uri)} does not work ({error_line(error, uri)})") from None

    def _create(self, experiment: str) -> str:
        """Artifacts of a database file live beside it, wherever the driver's current folder is."""
        location = None
        if self.uri.startswith(SQLITE):
            location = artifacts_of(Path(self.uri.removeprefix(SQLITE)), experiment)
        return str(self.client.create_experiment(experiment, artifact_location=location))

    def _find(self, tags: Mapping[str, str], lacks: str = "") -> str | None:
        """A run with all these tags, and without the tag `lacks`."""
        query = " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items())
        runs = self.client.search_runs([self.experiment_id], query, max_results=100 if lacks else 1)
        return next((str(run.info.run_id) for run in runs if lacks not in run.data.tags), None)

    def sweep_run(self, sweep: str, params: Mapping[str, Any], description: str = "", identity: str = "") -> str:
        """Run id of the sweep's parent: found by the sweep's `identity`, or made.

        Names are not unique: two storages may each have a sweep of one name. A sweep from before there were
        identities ("") is found by its name, among those that have none.
        """
        tags = {SWEEP_TAG: sweep, TRIAL_TAG: "parent"} | ({ID_TAG: identity} if identity else {})
        note = {"mlflow.note.content": description}
        return self._open(tags, sweep, params, note, lacks="" if identity else ID_TAG)

    def trial_run(self, sweep: str, trial: str, parent: str | None, params: Mapping[str, Any]) -> str:
        """Run id of a trial, a child of `parent`: found by its tags, or made. One run a trial, whatever restarts."""
        tags = {SWEEP_TAG: sweep, TRIAL_TAG: trial} | ({PARENT_TAG: parent} if parent else {})
        return self._open(tags, trial, params, {})

    def trial_runs(self, parent: str) -> dict[str, str]:
        """Run ids of a parent's children by the trial's name."""
        found, token = dict[str, str](), None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], f"tags.`{PARENT_TAG}` = '{parent}'", max_results=1000, page_token=token
            )
            found |= {str(run.data.tags[TRIAL_TAG]): str(run.info.run_id) for run in page}
            token = page.token
            if not token:
                return found

    def _open(
        self, tags: dict[str, str], name: str, params: Mapping[str, Any], more: Mapping[str, str], lacks: str = ""
    ) -> str:
        from mlflow.entities import Param
        from mlflow.tracking.context.registry import resolve_tags

        run_id = self._find(tags, lacks)
        if run_id:
            self.client.update_run(run_id, status="RUNNING")
            known = self.client.get_run(run_id).data.params
        else:
            run_id, known = (
                str(
                    self.client.create_run(
                        self.experiment_id, tags=resolve_tags({**more, **tags}), run_name=name
                    ).info.run_id
                ),
                {},
            )
        # Parameters cannot change; a run that was found may lack those that its maker did not live to send.
        values = [Param(key, str(value)[:MAX_PARAM]) for key, value in params.items() if key not in known]
        for first in range(0, len(values), 100):
            self.client.log_batch(run_id, params=values[first : first + 100])
        return run_id

    def log_lines(self, run_id: str, lines: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Send lines of a record: metrics in batches against samples seen, pictures by step.

        Sending a line twice changes nothing, so whoever does not know whether a call arrived repeats it: MLflow keeps
        one of equal points (a line has its own time), and pictures that are there are left out here.
        """
        from mlflow.entities import Metric
        from PIL import Image

        metrics = [
            Metric(key, float(value), _milliseconds(line), line["samples"])
            for line in lines
            for key, value in line.get("metrics", {}).items()
        ]
        for first in range(0, len(metrics), 500):
            self.client.log_batch(run_id, metrics=metrics[first : first + 500])
        pictures = [line for line in lines if "image" in line]
        sent = [file.path for file in self.client.list_artifacts(run_id, "images")] if pictures else []
        for line in pictures:
            start = f"images/{line['name']}+step+{line['samples']}+"
            if any(path.startswith(start) and path.endswith("+compressed.webp") for path in sent):
                continue
            with Image.open(folder / line["image"]) as picture:
                picture.load()
                self.client.log_image(
                    run_id, picture, key=line["name"], step=line["samples"], timestamp=_milliseconds(line)
                )

    def log_values(
        self,
        run_id: str,
        values: Mapping[str, float],
        tags: Mapping[str, str] | None = None,
        line: Mapping[str, Any] | None = None,
    ) -> None:
        """Single numbers and tags of a run; the numbers belong to `line` of its record, or to now."""
        from mlflow.entities import Metric, RunTag

        step = int(line["samples"]) if line else 0
        metrics = [Metric(k, float(v), _milliseconds(line), step) for k, v in values.items()]
        self.client.log_batch(run_id, metrics=metrics, tags=[RunTag(k, v) for k, v in (tags or {}).items()])

    def log_files(self, run_id: str, files: Sequence[Path], folder: str | None = None) -> None:
        """Files (or whole folders) as artifacts."""
        for file in files:
            if file.is_dir():
                self.client.log_artifacts(run_id, str(file), f"{folder}/{file.name}" if folder else file.name)
            else:
                self.client.log_artifact(run_id, str(file), folder)

    def log_table(self, run_id: str, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Rows as a table that the UI shows, in place of an earlier one (MLflow's own call would append to it)."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        self.client.log_dict(
            run_id, {"columns": columns, "data": [[row.get(c) for c in columns] for row in rows]}, file
        )
        self.client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": file, "type": "table"}]))

    def log_student(self, run_id: str, student: Path) -> None:
        """The model folder as a logged model, once a run, registered under the experiment's name as its `best`."""
        if not self.client.get_run(run_id).outputs.model_outputs:
            log_student(self._mlflow, self.client, self.uri, run_id, student, self.experiment)

    def close(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run: FINISHED, FAILED or KILLED (stopped early)."""
        self.client.set_terminated(run_id, status)


def _milliseconds(line: Mapping[str, Any] | None) -> int:
    return int((line["time"] if line else time.time()) * 1000)
