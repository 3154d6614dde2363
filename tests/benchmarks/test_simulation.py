"""Simulated sweeps: curves that are the measured ones, and a sweep over them whose record is complete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient
from services import end, start
from sweeps_for_tests import lines_of

from tract_ray.benchmarks.simulation.measure import replay_of, replayed_run
from tract_ray.benchmarks.simulation.replayed_trials import METRIC, distances, pace, replay_run
from tract_ray.config import to_dict
from tract_ray.search.space import apply_changes
from tract_ray.training import RunResult

RUN = replayed_run()
REPLAY = replay_of(RUN, 10.0)
LAST = REPLAY.marks[-1]


def plain(seed: int = 0, **method: float) -> dict[str, Any]:
    changes: dict[str, Any] = {f"method.{name}": value for name, value in method.items()}
    data: dict[str, Any] = to_dict(apply_changes(RUN, {**changes, "seed": seed}))
    return data


def mean_distance(**method: float) -> float:
    """Over seeds, which leaves 3% / sqrt(400) of the spread."""
    scores = (min(distances(plain(seed, **method), LAST, REPLAY.phase_steps).values()) for seed in range(400))
    return sum(scores) / 400


@pytest.mark.parametrize(("mu_s", "distance"), [(0.0, 32.0), (0.1, 6.65), (0.5, 4.85), (0.9, 5.15), (0.99, 12.5)])
def test_the_response_to_mu_s_is_the_measured_one(mu_s: float, distance: float) -> None:
    assert mean_distance(mu_s=mu_s) == pytest.approx(distance, rel=0.01)


def test_three_times_the_images() -> None:
    assert mean_distance(samples=3 * 128_000) == pytest.approx(4.00, rel=0.01)


def test_the_response_to_mu_i_is_the_measured_one() -> None:
    """Of the bank, one average is as good as the best, and none at all is 7% worse."""
    scores = distances(plain(), LAST, REPLAY.phase_steps)
    best = min(scores.values())
    assert scores[0.0] / best == pytest.approx(5.21 / 4.85, rel=0.01)
    assert scores[1e-3 ** (1 / REPLAY.phase_steps)] == pytest.approx(best)


def test_curves_are_functions_of_the_configuration() -> None:
    """Equal for equal ones, other noise for another seed, and worse on the way within a phase."""
    marks = [[min(distances(plain(s), m, 1000).values()) for m in REPLAY.marks] for s in (0, 0, 1)]
    assert marks[0] == marks[1] != marks[2]
    assert [m.images for m in REPLAY.marks] == [32_000, 64_000, 96_000, 128_000]
    assert [(m.final_phase, m.last) for m in REPLAY.marks] == [(0, 0), (0, 0), (1, 0), (1, 1)]
    for curve in marks:
        assert curve[0] > curve[1] < curve[2] > curve[3]


def test_a_replayed_run_leaves_what_a_run_leaves(tmp_path: Path) -> None:
    reports: list[dict[str, Any]] = []
    slept: list[float] = []
    replay_run(plain(), tmp_path, REPLAY, reports.append, slept.append)
    assert sum(slept) == pytest.approx(pace(plain(), 10.0))
    assert 8 <= sum(slept) <= 12
    expected = [min(distances(plain(), mark, REPLAY.phase_steps).values()) for mark in REPLAY.marks]
    assert [(r["samples"], r["distance"]) for r in reports] == [
        (mark.images, distance) for mark, distance in zip(REPLAY.marks, expected, strict=True)
    ]
    assert [r["finished"] for r in reports] == [False, False, False, True]
    lines = lines_of(tmp_path)
    assert len(lines) == 28 + 2 * 4  # 25 points of the loss and three at marks; a score and a picture each
    assert [x["metrics"][METRIC] for x in lines if METRIC in x.get("metrics", {})] == expected
    assert all((tmp_path / x["image"]).is_file() for x in lines if "image" in x)

    written = json.loads((tmp_path / "result.json").read_text())
    assert RunResult.from_json(written).to_json() == written
    assert written["distance"] == expected[-1]

    replay_run(plain(), tmp_path, REPLAY, reports.append, slept.append)
    assert reports[4:] == reports[3:4]
    assert lines_of(tmp_path) == lines


def test_a_replayed_trial_needs_no_torch() -> None:
    """A simulated cluster has a process for every slot on one machine: with torch, each takes 500 MB more."""
    code = f"import sys, {replay_run.__module__}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "False\n"


@pytest.mark.cluster
def test_a_simulated_sweep(tmp_path: Path) -> None:
    """Three nodes, twenty trials: no trial is lost, the best one is the curves' best, and MLflow has every line."""
    command = [
        sys.executable,
        "-m",
        "tract_ray.benchmarks.simulation",
        "--nodes",
        "3",
        "--trials",
        "20",
        "--seconds",
        "1",
    ]
    log = tmp_path / "log.txt"
    process = start([*command, "--folder", tmp_path / "w", "--json", tmp_path / "numbers.json"], log)
    try:
        assert process.wait(timeout=240) == 0, log.read_text()[-3000:]
    finally:
        end(process)
    folder = tmp_path / "w" / "sweeps" / "simulation"

    study = optuna.load_study(study_name="simulation", storage=f"sqlite:///{folder / 'study.db'}")
    trials = study.trials
    states = [trial.state.name for trial in trials]
    assert len(states) == 20
    assert set(states) == {"COMPLETE", "PRUNED"}
    final = {}
    for trial in trials:
        run = to_dict(apply_changes(RUN, trial.user_attrs["changes"]))
        curve = {m.images: min(distances(run, m, REPLAY.phase_steps).values()) for m in REPLAY.marks}
        if trial.state.name == "COMPLETE":
            final[trial.number] = curve[LAST.images]
            assert trial.value == curve[LAST.images]
        else:
            stopped = trial.user_attrs["costs"]["0"]["samples"]
            assert trial.intermediate_values[max(trial.intermediate_values)] == curve[stopped]
    best = min(final, key=final.__getitem__)
    assert (study.best_trial.number, study.best_value) == (best, final[best])

    client = MlflowClient(f"sqlite:///{tmp_path / 'w' / 'mlflow' / 'server.db'}")
    experiment = client.get_experiment_by_name("simulation")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=100)}
    assert sorted(runs) == ["simulation", *(f"trial-{number:04d}" for number in range(20))]
    total = 0
    for trial in trials:
        name = f"trial-{trial.number:04d}"
        lines, run_id = lines_of(folder / "trials" / name), runs[name].info.run_id
        total += len(lines)
        for key in ("loss", METRIC, "mu_i_best"):
            points = [(x["samples"], x["metrics"][key]) for x in lines if key in x.get("metrics", {})]
            assert [(p.step, p.value) for p in client.get_metric_history(run_id, key)] == points
        assert runs[name].info.status == ("FINISHED" if trial.state.name == "COMPLETE" else "KILLED")

    numbers = json.loads((tmp_path / "numbers.json").read_text())["summary"]
    assert numbers["lines shipped"] == numbers["lines of the records"] == total
    assert numbers["trials finished"] + numbers["trials stopped early"] == 20
    assert 0 < numbers["utilisation of slots"] < 1
    seconds = [pace(to_dict(apply_changes(RUN, t.user_attrs["changes"])), 1.0) for t in trials]
    records = [lines_of(folder / "trials" / f"trial-{t.number:04d}") for t in trials]
    done = [lines[-1]["samples"] / LAST.images for lines in records]
    ideal = sum(s * share for s, share in zip(seconds, done, strict=True)) / 3
    assert numbers["ideal search, s"] == pytest.approx(ideal, abs=0.1)
    assert numbers["of it search, s"] > ideal
