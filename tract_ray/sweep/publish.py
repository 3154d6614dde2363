"""The end of a sweep in MLflow: the summary and plots on the parent, the best student as artifact and logged model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tract_ray.analysis.rows import describe, finished
from tract_ray.sweep.definition import SweepResult
from tract_ray.tracking import MlflowStore


def publish(folder: Path, store: MlflowStore, result: SweepResult) -> str:
    """Send them; returns what went wrong, or nothing. The files in `folder` hold all of it in any case."""
    best, reference, parent = finished(result.rows)[0], result.reference, result.parent_run
    table: list[dict[str, Any]] = []
    for row in result.rows:
        # A column with dots in its name looks empty on MLflow's page.
        changes = {k.replace(".", "/"): v for k, v in row.changes.items() if isinstance(v, int | float | str)}
        told = {"trial": row.name, "status": row.status, "configuration": describe(row.params, row.changes), **changes}
        distance = row.distance if row.status == "finished" else None
        table.append({**told, "mu_i": row.mu_i, "distance": distance, "images": row.samples})
    columns = list(dict.fromkeys(key for row in table for key in row))
    scores = {f"teacher/{s.steps}_steps" if s.steps else "noise_floor": s.distance for s in reference}
    tags = {"tract_ray.best_trial": best.name, "tract_ray.metric": reference[0].metric}
    student = folder / "trials" / best.name / "student"
    try:
        store.log_files(parent, [folder / "summary.json", *sorted((folder / "plots").glob("*.png"))])
        store.log_table(parent, [{name: told.get(name) for name in columns} for told in table], "trials.json")
        run_id = store.trial_run(result.name, best.name, parent, {})
        store.log_files(run_id, [student])
        store.log_student(run_id, student)
        store.close(run_id)
        values = {"distance": best.distance or 0.0, **scores, **result.ledger.metrics()}
        store.log_values(parent, values, tags | {"tract_ray.verdict": result.verdict})
    except Exception as error:  # whatever MLflow raises
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return ""
