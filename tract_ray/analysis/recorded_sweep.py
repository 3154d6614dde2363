"""Sweeps as MLflow remembers them: for notebooks, and for whoever has the server's address and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tract_ray.analysis.rows import TrialRow, finished
from tract_ray.config import InputError
from tract_ray.tracking.store import PARENT_TAG, SWEEP_TAG, TRIAL_TAG, tracking_uri

BANK = "/mu_i_"


@dataclass
class RecordedSweep:
    """A sweep read from MLflow: its trials as rows, its metric's name and its reference distances."""

    name: str
    metric: str
    rows: list[TrialRow]
    reference: dict[str, float] = field(default_factory=dict)
    run_id: str = ""
    _client: Any = field(default=None, repr=False)

    def table(self) -> Any:
        """The trials as a pandas DataFrame, finished ones first and best first."""
        import pandas as pd

        others = [row for row in self.rows if row.status != "finished"]
        return pd.DataFrame(
            [
                {"trial": r.name, **_short(r.changes), "mu_i": r.mu_i, "images": r.samples, self.metric: r.distance}
                | {"status": r.status}
                for r in [*finished(self.rows), *others]
            ]
        )

    def picture(self, name: str) -> Any:
        """One of the sweep's pictures (`samples`, `mu_s`, …) as a PIL image."""
        from PIL import Image

        return Image.open(self._client.download_artifacts(self.run_id, f"{name}.png"))


def newest_sweep(experiment: str, uri: str | None = None) -> RecordedSweep:
    """The newest finished sweep of `experiment` at `uri` (default: see `default_record`)."""
    import mlflow
    from mlflow import MlflowClient

    uri = uri or default_record()
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    parents = (
        client.search_runs([found.experiment_id], f"tags.`{TRIAL_TAG}` = 'parent'", max_results=50) if found else []
    )
    parents = [p for p in parents if "tract_ray.best_trial" in p.data.tags]
    if not parents:
        raise InputError(f"mlflow-uri: {uri} holds no finished {experiment} sweep; run one, or set MLFLOW_TRACKING_URI")
    parent = max(parents, key=lambda p: p.info.start_time)
    mlflow.set_tracking_uri(uri)
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`{PARENT_TAG}` = '{parent.info.run_id}'", max_results=5000
    )
    metric = parent.data.tags["tract_ray.metric"]
    rows = [_row(child, metric) for child in sorted(children, key=lambda c: str(c.data.tags[TRIAL_TAG]))]
    reference = {
        f"teacher, {name.removeprefix('teacher/').removesuffix('_steps')} steps": value
        for name, value in parent.data.metrics.items()
        if name.startswith("teacher/") and not name.endswith("/1_steps")
    }
    return RecordedSweep(parent.data.tags[SWEEP_TAG], metric, rows, reference, parent.info.run_id, client)


def default_record() -> str:
    """`MLFLOW_TRACKING_URI`, else the `mlflow.db` of this folder or of the one above (a notebook's project)."""
    here = Path.cwd()
    return tracking_uri(None, next((f for f in (here, here.parent) if (f / "mlflow.db").is_file()), here))


def _row(run: Any, metric: str) -> TrialRow:
    tags, metrics = run.data.tags, run.data.metrics
    distances = {float(k.split(BANK)[1]): v for k, v in metrics.items() if k.startswith(f"{metric}{BANK}")}
    names = [key for key in tags.get("tract_ray.changed", "").split(",") if key in run.data.params]
    changes = {key: _value(run.data.params[key]) for key in names}
    status = tags.get("tract_ray.status", "running")
    return TrialRow(
        name=tags[TRIAL_TAG],
        status=status,
        params={},
        changes=changes,
        samples=int(metrics.get("samples", 0)),
        distance=metrics.get("distance"),
        mu_i=metrics.get("mu_i_best"),
        distances=distances if status == "finished" else {},
        anchor=tags.get("tract_ray.anchor") == "true",
    )


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _short(changes: dict[str, Any]) -> dict[str, Any]:
    return {key.rpartition(".")[2]: value for key, value in changes.items()}
