"""Shipping records to a real server: every line arrives once, whatever dies in between."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from records import LINES_PER_MARK, expected, history, pictures, write_lines
from services import MlflowServer, wait_until

from tract_ray.files import read_json, write_json
from tract_ray.tracking import MlflowStore, Shipper
from tract_ray.tracking.shipper import CURSOR

pytestmark = pytest.mark.cluster
KEYS = ("loss", "fid_digits", "fid_digits/mu_i_0.5")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to a server that is away gives up at once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def assert_complete(client: MlflowClient, run_id: str, marks: int) -> None:
    for key in KEYS:
        assert history(client, run_id, key) == expected(key, marks)
    assert pictures(client, run_id) == [("samples", 64 * mark) for mark in range(marks)]


def cursor(folder: Path) -> dict[str, object]:
    return dict(read_json(folder / CURSOR, "record")) if (folder / CURSOR).exists() else {}


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_killed_while_it_is_sent_to(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """Killed in the middle, more lines meanwhile, a new server on the same database: each line is there once."""
    store = MlflowStore(mlflow_server.uri, "killed")
    parent = store.sweep_run("killed", {"seed": 0})
    folders = [tmp_path / "trial-0000", tmp_path / "trial-0001"]
    shipper = Shipper(store, "killed", parent, interval=0.05).start()
    for folder in folders:
        shipper.watch(folder.name, folder, {"seed": 0, "folder": folder.name})
        write_lines(folder, 0, 10)
    wait_until(lambda: int(str(cursor(folders[0]).get("sent", 0))) > 0, "nothing was sent")
    mlflow_server.kill()
    for folder in folders:
        write_lines(folder, 10, 14, keep=10 * LINES_PER_MARK)
    wait_until(lambda: shipper.trouble is not None, "no trouble was noticed")
    mlflow_server.start()
    for folder in folders:
        shipper.end(folder.name, "FINISHED", {"distance": 61.0}, {"tract_ray.status": "finished"})
    assert shipper.close()
    runs = store.client.search_runs([store.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["killed", "trial-0000", "trial-0001"]
    for folder in folders:
        run = store.client.get_run(str(cursor(folder)["run_id"]))
        assert_complete(store.client, run.info.run_id, 14)
        assert run.info.status == "FINISHED"
        assert run.data.params == {"seed": "0", "folder": folder.name}
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert history(store.client, run.info.run_id, "distance") == [(64 * 13, 61.0)]


def test_a_server_that_stays_away(store: MlflowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing gives up in time and says so; the next driver sends what is left."""
    shipper = Shipper(store, "away", None, interval=0.05)
    shipper.watch("trial-0000", tmp_path, {})
    write_lines(tmp_path, 0, 2)
    with monkeypatch.context() as patch:
        patch.setattr(store.client, "log_batch", refuse)  # a database file cannot be killed
        started = time.monotonic()
        assert not shipper.start().close(deadline=1)
        assert time.monotonic() - started < 5
        assert shipper.trouble == "no answer"
    later = Shipper(store, "away", None)
    later.watch("trial-0000", tmp_path, {})
    assert later.close()
    assert later.trouble is None
    assert_complete(store.client, str(cursor(tmp_path)["run_id"]), 2)


def refuse(*args: object, **kwargs: object) -> None:
    raise ConnectionError("no answer\nmany lines")


def test_a_resumed_run_rewrites_its_last_lines(store: MlflowStore, tmp_path: Path) -> None:
    """The run fell back to a checkpoint behind what was sent, and wrote the same lines with other times."""
    shipper = Shipper(store, "resumed", None, interval=0.02).start()
    shipper.watch("trial-0000", tmp_path, {})
    write_lines(tmp_path, 0, 6)
    wait_until(lambda: cursor(tmp_path).get("sent") == 6 * LINES_PER_MARK, "not sent")
    write_lines(tmp_path, 2, 6, keep=2 * LINES_PER_MARK)
    write_lines(tmp_path, 6, 9, keep=6 * LINES_PER_MARK)
    assert shipper.close()
    assert_complete(store.client, str(cursor(tmp_path)["run_id"]), 9)


def test_a_driver_that_died_between_sending_and_noting_it(store: MlflowStore, tmp_path: Path) -> None:
    """The next one sends those lines again."""
    write_lines(tmp_path, 0, 4)
    for sent in (None, 2 * LINES_PER_MARK, 0):
        shipper = Shipper(store, "forgotten", None)
        if sent is not None:
            write_json(tmp_path / CURSOR, {**cursor(tmp_path), "sent": sent})
        shipper.watch("trial-0000", tmp_path, {})
        assert shipper.close()
        assert_complete(store.client, str(cursor(tmp_path)["run_id"]), 4)
    (tmp_path / CURSOR).unlink()  # not even the run was noted
    shipper = Shipper(store, "forgotten", None)
    shipper.watch("trial-0000", tmp_path, {})
    assert shipper.close()
    assert_complete(store.client, str(cursor(tmp_path)["run_id"]), 4)


def test_a_record_of_another_server(store: MlflowStore, mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """Resuming with another --mlflow-uri sends everything there."""
    other = MlflowStore(mlflow_server.uri, "moved")
    write_lines(tmp_path, 0, 3)
    for each in (store, other):
        shipper = Shipper(each, "moved", None)
        shipper.watch("trial-0000", tmp_path, {})
        assert shipper.close()
        assert_complete(each.client, str(cursor(tmp_path)["run_id"]), 3)


def test_a_run_that_was_deleted_stops_no_other(store: MlflowStore, tmp_path: Path) -> None:
    """Somebody deleted a trial in the UI while the sweep was running."""
    shipper = Shipper(store, "deleted", None, interval=0.02).start()
    for name in ("trial-0000", "trial-0001"):
        shipper.watch(name, tmp_path / name, {})
        write_lines(tmp_path / name, 0, 1)
    wait_until(lambda: all(cursor(tmp_path / f"trial-000{n}").get("sent") for n in range(2)), "not sent")
    store.client.delete_run(str(cursor(tmp_path / "trial-0000")["run_id"]))
    for name in ("trial-0000", "trial-0001"):
        write_lines(tmp_path / name, 1, 3, keep=LINES_PER_MARK)
    assert not shipper.close(deadline=1)
    assert shipper.trouble is not None
    assert "deleted" in shipper.trouble
    assert_complete(store.client, str(cursor(tmp_path / "trial-0001")["run_id"]), 3)


def test_the_status_follows_the_trial(store: MlflowStore, tmp_path: Path) -> None:
    """Interrupted, resumed, finished; then resumed again, when nothing is left to say."""

    def ship(status: str | None, marks: int, values: dict[str, float]) -> str:
        shipper = Shipper(store, "status", None)
        shipper.watch("trial-0000", tmp_path, {})
        write_lines(tmp_path, 0, marks)
        if status:
            shipper.end("trial-0000", status, values, {"tract_ray.status": status.lower()})
        assert shipper.close()
        return str(store.client.get_run(str(cursor(tmp_path)["run_id"])).info.status)

    assert ship("KILLED", 1, {}) == "KILLED"
    assert ship(None, 2, {}) == "RUNNING"
    assert ship("FINISHED", 3, {"distance": 98.0}) == "FINISHED"
    run_id = str(cursor(tmp_path)["run_id"])
    ended = store.client.get_run(run_id).info.end_time
    assert ship("FINISHED", 3, {"distance": 98.0}) == "FINISHED"
    assert store.client.get_run(run_id).info.end_time == ended
    assert history(store.client, run_id, "distance") == [(128, 98.0)]
    assert_complete(store.client, run_id, 3)


def test_a_line_that_is_being_written_waits(store: MlflowStore, tmp_path: Path) -> None:
    heard: list[int] = []
    shipper = Shipper(store, "torn", None, lambda trial, line: heard.append(line["samples"]), interval=0.02).start()
    shipper.watch("trial-0000", tmp_path, {})
    write_lines(tmp_path, 0, 1)
    path = tmp_path / "record.jsonl"
    whole = json.dumps({"samples": 64, "time": time.time(), "metrics": {"loss": 0.5}}) + "\n"
    with path.open("a") as file:
        file.write(whole[:20])
        file.flush()
        wait_until(lambda: cursor(tmp_path).get("sent") == LINES_PER_MARK, "not sent")
        time.sleep(0.1)
        assert heard == [0, 0, 0]
        file.write(whole[20:])
    assert shipper.close()
    assert heard == [0, 0, 0, 64]
    assert history(store.client, str(cursor(tmp_path)["run_id"]), "loss") == [(0, 1.0), (64, 0.5)]


def test_a_line_that_is_written_just_before_the_end(store: MlflowStore, tmp_path: Path) -> None:
    """After the shipper has read the record, and before it looks whether the run is over."""
    folder, shipper = tmp_path / "last", Shipper(store, "last", None)

    def listener(trial: str, line: object) -> None:
        if not shipper.open_trials():
            return
        write_lines(folder, 1, 2, keep=LINES_PER_MARK)
        shipper.end(trial, "FINISHED", {}, {})

    shipper.listener = listener
    write_lines(folder, 0, 1)
    shipper.watch("last", folder, {})
    assert shipper.close()
    assert_complete(store.client, str(cursor(folder)["run_id"]), 2)
