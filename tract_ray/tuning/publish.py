"""The end of a sweep in MLflow: the summary and plots on the parent, the best student as artifact and logged model."""

from __future__ import annotations

from pathlib import Path

from tract_ray.tracking import MlflowStore
from tract_ray.training import Score
from tract_ray.tuning.results import TrialRow, finished


def publish(
    folder: Path, store: MlflowStore, name: str, rows: list[TrialRow], reference: list[Score], parent: str
) -> str:
    """Send them; returns what went wrong, or nothing. The files in `folder` hold all of it in any case."""
    best = finished(rows)[0]
    table = [
        {"trial": r.name, "status": r.status, "distance": r.distance, "mu_i": r.mu_i, "images": r.samples} | r.changes
        for r in rows
    ]
    scores = {f"teacher/{s.steps}_steps" if s.steps else "noise_floor": s.distance for s in reference}
    tags = {"tract_ray.best_trial": best.name, "tract_ray.metric": reference[0].metric}
    student = folder / "trials" / best.name / "student"
    try:
        store.log_files(parent, [folder / "summary.json", *sorted((folder / "plots").glob("*.png"))])
        store.log_table(parent, table, "trials.json")
        run_id = store.trial_run(name, best.name, parent, {})
        store.log_files(run_id, [student])
        store.log_student(run_id, student)
        store.close(run_id)
        store.log_values(parent, {"distance": best.distance or 0.0, **scores}, tags)
    except Exception as error:  # whatever MLflow raises
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return ""
