"""A sweep that is killed and resumed is the sweep that was not: kill -9 of its driver, on a local Ray."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from mlflow.entities import Run
from services import MlflowServer, end, wait_until
from sweeps_for_tests import SCRIPT, SMALL, Called, begin, call, lines_of, points_of

from tract_ray.tracking import MlflowStore
from tract_ray.training.checkpoint import read_state

pytestmark = [pytest.mark.cluster, pytest.mark.faults]

LONG = 240  # seconds: machines under load
NAMES = ["trial-0000", "trial-0001", "trial-0002"]


@dataclass(frozen=True)
class Sweeping:
    """The sweep as its user types it, again and again."""

    storage: Path
    cache: Path
    store: MlflowStore

    @property
    def options(self) -> list[str]:
        where = ["--storage", str(self.storage), "--mlflow-uri", self.store.uri, "--ray-address", "local"]
        return [*SMALL.split(), *where, "--name", "killed", "--trials", "3", "--concurrency", "1"]

    def call(self, *more: str, script: Path = SCRIPT) -> Called:
        return call(*self.options, *more, script=script, cache=self.cache)

    @property
    def folder(self) -> Path:
        return self.storage / "sweeps" / "killed"

    def trial(self, number: int) -> Path:
        return self.folder / "trials" / NAMES[number]

    def content(self, number: int) -> dict[str, tuple[bytes, int]]:
        """Every file of a trial and when it was written, but for how much of it has been shipped."""
        files = [f for f in self.trial(number).rglob("*") if f.is_file() and f.name != "shipped.json"]
        return {str(f.relative_to(self.folder)): (f.read_bytes(), f.stat().st_mtime_ns) for f in files}

    def drawn(self) -> dict[int, tuple[str, list[float]]]:
        """Optuna's trials that were handed out, by number: state and values."""
        # Open to write: SQLite may have to roll back what the kill left half written.
        with contextlib.closing(sqlite3.connect(self.folder / "study.db")) as database:
            rows = database.execute(
                "select number, state, param_value from trials join trial_params using (trial_id) "
                "order by number, param_name"
            ).fetchall()
        return {number: (state, [v for n, _, v in rows if n == number]) for number, state, _ in rows}

    def runs(self) -> dict[str, Run]:
        """The sweep's runs in MLflow."""
        found = self.store.client.search_runs([self.store.experiment_id], "tags.`tract_ray.sweep` = 'killed'")
        assert len({run.info.run_name for run in found}) == len(found)
        return {str(run.info.run_name): run for run in found}


@dataclass(frozen=True)
class Story:
    """What was seen: while the first driver ran, after it was killed, and after a second one went on to the end."""

    sweep: Sweeping
    refused: Called
    left_running: list[str]
    first: dict[str, tuple[bytes, int]]
    kept_lines: list[str]
    drawn: dict[int, tuple[str, list[float]]]
    runs: dict[str, Run]
    ended: Called


def alive(processes: list[psutil.Process]) -> list[str]:
    """Which of them still run. Ray's two agents of a node notice a minute later that it is gone."""
    found = []
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(each.cmdline())
            if each.status() != psutil.STATUS_ZOMBIE and "Agent" not in line:
                found.append(line)
    return found


def checkpointed(folder: Path) -> list[str]:
    """The lines of a trial's record that its checkpoint continues."""
    if not (folder / "checkpoint.safetensors").is_file():
        return []
    state, _ = read_state(folder / "checkpoint.safetensors", "checkpoint")
    return (folder / "record.jsonl").read_text().splitlines()[: state["record_lines"]]


@pytest.fixture(scope="module")
def story(mlflow_server: MlflowServer, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    storage: Path = tmp_path_factory.mktemp("storage")
    sweep = Sweeping(storage, cache, MlflowStore(mlflow_server.uri, "mu_search"))
    log = storage / "first.log"
    driver: subprocess.Popen[bytes] = begin(log, cache, *sweep.options)
    try:
        wait_until((sweep.folder / "study.db").exists, "no study", LONG, log)
        refused = sweep.call("--resume")
        # Killed as soon as the second trial has begun, with kill -9: nothing can be said or tidied.
        wait_until((sweep.trial(1) / "record.jsonl").exists, "no second trial", LONG, log)
        processes = psutil.Process(driver.pid).children(recursive=True)
        assert any("raylet" in line for line in alive(processes))
        driver.kill()
        driver.wait()
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not alive(processes), "Ray outlived its driver", LONG)
    finally:
        end(driver, at_once=True)
    left_running, first, kept_lines = alive(processes), sweep.content(0), checkpointed(sweep.trial(1))
    drawn, runs = sweep.drawn(), sweep.runs()
    return Story(sweep, refused, left_running, first, kept_lines, drawn, runs, sweep.call("--resume"))


def test_a_second_driver_is_refused(story: Story) -> None:
    assert story.refused == Called(2, "", "error: name: another process is running the sweep 'killed'\n")


def test_its_cluster_ends_with_a_killed_driver(story: Story) -> None:
    assert story.left_running == []


def test_the_kill_came_in_the_middle(story: Story) -> None:
    """Otherwise the tests below show nothing."""
    assert story.drawn[0][0] == "COMPLETE"
    assert len(story.drawn) < 3 or story.drawn[2][0] == "RUNNING"
    assert "killed" in story.runs


def test_finished_trials_are_kept(story: Story) -> None:
    """Byte for byte, and none is written again; what a running one had saved is continued."""
    assert story.ended.status == 0, story.ended
    assert f"{Path('trials') / NAMES[0] / 'result.json'}" in story.first
    assert story.sweep.content(0) == story.first
    kept = len(story.kept_lines)
    assert (story.sweep.trial(1) / "record.jsonl").read_text().splitlines()[:kept] == story.kept_lines


def test_optunas_history_is_kept(story: Story) -> None:
    """What was drawn stays drawn, under its number; nothing is drawn twice."""
    after = story.sweep.drawn()
    assert [state for state, _ in after.values()] == ["COMPLETE"] * 3
    assert {number: values for number, (_, values) in after.items() if number in story.drawn} == {
        number: values for number, (_, values) in story.drawn.items()
    }
    assert len({tuple(values) for _, values in after.values()}) == 3


def test_one_mlflow_run_for_each_trial(story: Story) -> None:
    after = story.sweep.runs()
    assert {name: run.info.status for name, run in after.items()} == dict.fromkeys(["killed", *NAMES], "FINISHED")
    for name, run in story.runs.items():
        assert after[name].info.run_id == run.info.run_id
    assert {after[name].data.tags["mlflow.parentRunId"] for name in NAMES} == {after["killed"].info.run_id}


@pytest.mark.parametrize("number", range(3))
def test_no_line_is_lost_or_sent_twice(story: Story, number: int) -> None:
    folder, run = story.sweep.trial(number), story.sweep.runs()[NAMES[number]]
    assert run.data.metrics["distance"] == json.loads((folder / "result.json").read_text())["distance"]
    assert [line["samples"] for line in lines_of(folder)] == [
        line["samples"] for line in lines_of(story.sweep.trial(0))
    ]
    for key in ("loss", "fid_digits"):
        history = story.sweep.store.client.get_metric_history(run.info.run_id, key)
        sent, kept = sorted((point.step, point.value) for point in history), points_of(folder, key)
        assert [step for step, _ in sent] == [step for step, _ in kept]
        assert [value for _, value in sent] == pytest.approx([value for _, value in kept])


def test_a_finished_sweep_has_nothing_to_do(story: Story) -> None:
    """The same table again; no trial, no draw and no run more."""
    before = [story.sweep.content(number) for number in range(3)]
    drawn, runs = story.sweep.drawn(), story.sweep.runs()
    again = story.sweep.call("--resume")
    assert (again.status, again.err) == (0, "")
    table = story.ended.out[story.ended.out.index("smaller is better") :]
    assert again.out[again.out.index("smaller is better") :] == table
    assert "finished" not in again.out
    assert [story.sweep.content(number) for number in range(3)] == before
    assert story.sweep.drawn() == drawn
    after = story.sweep.runs()
    assert {name: run.info.run_id for name, run in after.items()} == {n: run.info.run_id for n, run in runs.items()}
    assert {run.info.status for run in after.values()} == {"FINISHED"}


@pytest.mark.parametrize(
    ("option", "difference"),
    [
        ("--lr 0.5", "method.lr was 0.001, is 0.5"),
        ("--seed 1", "seed was 0, is 1"),
        ("--time-schedule 8,2,1", "method.time_schedule was 8,4,1, is 8,2,1"),
        ("--teacher-samples 2560", "teacher.training.samples was 1280, is 2560"),
        ("--features inception_clean", "evaluation.features was classifier, is inception_clean"),
    ],
)
def test_another_setting_is_refused(story: Story, option: str, difference: str) -> None:
    called = story.sweep.call("--resume", *option.split())
    assert (called.status, called.out, called.err.count("\n")) == (2, "", 1)
    assert called.err.startswith("error: resume: killed was started with other settings: ")
    assert difference in called.err


def test_another_space_is_refused(story: Story, tmp_path: Path) -> None:
    other = tmp_path / "mu_search.py"
    drawn = "        return {**average"
    more = 'trial.suggest_float("another", 0.0, 1.0)'
    other.write_text(SCRIPT.read_text().replace(drawn, f"        {more}\n{drawn}"))
    called = story.sweep.call("--resume", script=other)
    assert (called.status, called.out) == (2, "")
    assert called.err == ("error: resume: killed was started with other settings: another was None, is 0 to 1\n")


def test_its_name_is_taken(story: Story) -> None:
    called = story.sweep.call()
    assert called == Called(2, "", "error: name: 'killed' is taken; add --resume, or choose another name\n")
