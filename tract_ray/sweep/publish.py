"""The end of a sweep in MLflow: the summary and plots on the parent, the best student as artifact and logged model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tract_ray.analysis.rows import POOLED, TrialRow, describe, finished, student_of
from tract_ray.files import read_json
from tract_ray.search.space import apply_changes
from tract_ray.search.trial_name import trial_name
from tract_ray.sweep.definition import SweepResult
from tract_ray.tracking import MlflowStore, error_line
from tract_ray.training import Paths, RunConfig
from tract_ray.training.averages import student_at
from tract_ray.training.result import RESULT


def best_student(row: TrialRow, run: RunConfig, trials: Path, paths: Paths) -> Path:
    """The folder of the student that `row` of a sweep over `run` is about: its first seed's, with the row's mu_i.

    Of several seeds the best mu_i in the mean need not be the first one's own best: then that average is taken from
    the run's last stage, and kept beside its student. Where the stage is gone it is the run's own student.
    """
    found, own = student_of(row, trials), trials / row.name / "student"
    if found is not None or row.mu_i is None:
        return found or own
    result = read_json(trials / row.name / RESULT, "result")
    about = {"metric": result["metric"], "distance": row.seeds[0], "noise": "report", "row": row.name}
    student = student_at(apply_changes(run, row.changes), paths, row.mu_i, about)
    return own if student is None else student.save(trials / row.name / POOLED)


def publish(folder: Path, store: MlflowStore, result: SweepResult, student: Path) -> str:
    """Send them; returns what went wrong, or nothing. The files in `folder` hold all of it in any case."""
    best, reference, parent = finished(result.rows)[0], result.reference, result.parent_run
    table: list[dict[str, Any]] = []
    for row in result.rows:
        # A column with dots in its name looks empty on MLflow's page.
        changes = {k.replace(".", "/"): v for k, v in row.changes.items() if isinstance(v, int | float | str)}
        told = {"trial": row.name, "status": row.status, "configuration": describe(row.params, row.changes), **changes}
        selection, distance = (row.selection, row.distance) if row.status == "finished" else (None, None)
        table.append({**told, "mu_i": row.mu_i, "selection": selection, "distance": distance, "images": row.samples})
    columns = list(dict.fromkeys(key for row in table for key in row))
    scores = {f"teacher/{s.steps}_steps" if s.steps else "noise_floor": s.distance for s in reference}
    tags = {"tract_ray.best_trial": best.name, "tract_ray.metric": reference[0].metric}
    try:
        _publish_rows(store, result)
        store.log_files(parent, [folder / "summary.json", *sorted((folder / "plots").glob("*.png"))])
        store.log_table(parent, [{name: told.get(name) for name in columns} for told in table], "trials.json")
        run_id = store.trial_run(result.name, best.name, parent, {})
        store.log_files(run_id, [student])
        store.log_student(run_id, student)
        store.close(run_id)
        values = {"distance": best.distance or 0.0, "selection": best.chosen_by, **scores, **result.ledger.metrics()}
        store.log_values(parent, values, tags | {"tract_ray.verdict": result.verdict})
    except Exception as error:  # whatever MLflow raises
        return error_line(error, store.uri)
    return ""


def _publish_rows(store: MlflowStore, result: SweepResult) -> None:
    """Say on each trial's run which row it belongs to and what that is worth: no seed ranks by itself."""
    runs = store.trial_runs(result.parent_run)
    for row in result.rows:
        shown = {"row_distance": row.distance, "row_selection": row.selection, "row_mu_i": row.mu_i}
        values = shown if row.status == "finished" else {}
        for repeat in range(len(row.costs)):
            own = {"distance": row.seeds[repeat]} if repeat < len(row.seeds) > 1 and values else {}
            run_id = runs.get(trial_name(row.number, repeat))
            if run_id is not None:
                numbers = {key: float(value) for key, value in {**values, **own}.items() if value is not None}
                tags = {"tract_ray.row": row.name, "tract_ray.status": row.status}
                store.log_values(run_id, numbers, tags, {"samples": row.samples, "time": time.time()})
