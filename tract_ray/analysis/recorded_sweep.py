"""Sweeps that are read back, from their files or from MLflow: for notebooks, and for whoever has a server's address."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tract_ray.analysis.rows import TrialRow, finished, importances, read_rows, student_of
from tract_ray.config import InputError, choose, require
from tract_ray.files import read_json
from tract_ray.search.sealed import read_study
from tract_ray.tracking.moved import mend_moved
from tract_ray.tracking.store import PARENT_TAG, SWEEP_TAG, TRIAL_TAG, tracking_uri
from tract_ray.training import Paths
from tract_ray.training.result import RESULT

BANK, SUMMARY = "/mu_i_", "summary.json"


@dataclass
class RecordedSweep:
    """A sweep that was read back: its trials as rows, its metric's name and its reference distances.

    `folder` is the sweep's own, None where it was read from MLflow, whose `run_id` is then the parent run.
    """

    name: str
    metric: str
    rows: list[TrialRow]
    reference: dict[str, float] = field(default_factory=dict)
    verdict: str = ""
    importances: dict[str, float] = field(default_factory=dict)
    folder: Path | None = None
    run_id: str = ""
    _client: Any = field(default=None, repr=False)

    @property
    def best(self) -> TrialRow | None:
        """The finished trial of the smallest `selection`."""
        return next(iter(finished(self.rows)), None)

    @property
    def failed(self) -> list[str]:
        """Names of the trials that failed."""
        return [row.name for row in self.rows if row.status == "failed"]

    @property
    def student(self) -> Path | None:
        """The model folder of the best trial's student, where the sweep's files are at hand."""
        best = self.best
        if not self.folder or not best:
            return None
        trials = self.folder / "trials"
        return student_of(best, trials) or trials / best.name / "student"

    def table(self) -> Any:
        """The trials as a pandas DataFrame, finished ones first and best first."""
        import pandas as pd

        others = [row for row in self.rows if row.status != "finished"]
        return pd.DataFrame(
            [
                {"trial": r.name, **_short(r.changes), "mu_i": r.mu_i, "images": r.samples}
                | {"selection": r.selection, self.metric: r.distance, "status": r.status}
                for r in [*finished(self.rows), *others]
            ]
        )

    def plots(self) -> dict[str, Any]:
        """The sweep's plots by name, drawn anew; a notebook shows them. Empty before a trial has finished."""
        from tract_ray.analysis.plots import plots

        longest = dict(list(self.reference.items())[:1])
        return plots(self.rows, self.metric, self.importances, longest) if self.best else {}

    def picture(self, name: str) -> Any:
        """One of the sweep's pictures (`samples`, `mu_s`, …) as a PIL image."""
        from PIL import Image

        if self.folder:
            file = self.folder / "plots" / f"{name}.png"
            known = sorted(path.stem for path in file.parent.glob("*.png"))
            require(bool(known), "sweep", f"{self.name} has no pictures yet; it draws them at its end")
            choose("picture", name, known)
            return Image.open(file)
        return Image.open(self._client.download_artifacts(self.run_id, f"{name}.png"))


def load_sweep(name: str, *, storage: str | Path | None = None, mlflow_uri: str | None = None) -> RecordedSweep:
    """A sweep by its name: from its study and folders below `storage`, or from MLflow where `mlflow_uri` is given.

    Also of a sweep that still runs, or was interrupted. The `table()` needs pandas, the `plots()` matplotlib.

    >>> import tract_ray as tr
    >>> found = tr.load_sweep("lr-example", storage=runs)
    >>> found.best.selection == min(row.selection for row in found.rows)
    True
    >>> found.table().columns.tolist()
    ['trial', 'lr', 'mu_i', 'images', 'selection', 'fid_digits', 'status']
    """
    if mlflow_uri:
        client = _client(mlflow_uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        parents = client.search_runs(experiments, f"tags.`{TRIAL_TAG}` = 'parent' and tags.`{SWEEP_TAG}` = '{name}'")
        require(bool(parents), "sweep", f"there is no sweep {name!r} at {mlflow_uri}")
        return _from_mlflow(client, max(parents, key=lambda p: p.info.start_time))
    folder = Paths.at(storage).storage / "sweeps" / name
    require((folder / "study.db").is_file(), "sweep", f"there is no sweep {name!r} in {folder.parent}")
    study = read_study(folder / "study.db", name, "sweep")
    summary = read_json(folder / SUMMARY, "sweep") if (folder / SUMMARY).exists() else {}
    rows = read_rows(study, folder / "trials")
    reference = {
        f"teacher, {score['steps']} steps" if score["steps"] else "real, half vs half": score["distance"]
        for score in summary.get("reference", ())
    }
    return RecordedSweep(
        name,
        summary.get("metric") or _metric_of(folder / "trials", rows),
        rows,
        reference,
        summary.get("verdict", ""),
        importances(study),
        folder,
    )


def newest_sweep(experiment: str, uri: str | None = None) -> RecordedSweep:
    """The newest finished sweep of `experiment` at `uri` (default: see `default_record`)."""
    uri = uri or default_record()
    client = _client(uri)
    found = client.get_experiment_by_name(experiment)
    parents = (
        client.search_runs([found.experiment_id], f"tags.`{TRIAL_TAG}` = 'parent'", max_results=50) if found else []
    )
    parents = [p for p in parents if "tract_ray.best_trial" in p.data.tags]
    if not parents:
        raise InputError(f"mlflow-uri: {uri} holds no finished {experiment} sweep; run one, or set MLFLOW_TRACKING_URI")
    return _from_mlflow(client, max(parents, key=lambda p: p.info.start_time))


def _client(uri: str) -> Any:
    import mlflow
    from mlflow import MlflowClient

    mend_moved(uri)
    mlflow.set_tracking_uri(uri)  # artifacts are fetched from there
    return MlflowClient(tracking_uri=uri)


def _from_mlflow(client: Any, parent: Any) -> RecordedSweep:
    """The rows of the summary that its end left there, the same as in its folder; before that, what its runs tell."""
    tags, run_id = parent.data.tags, parent.info.run_id
    if any(file.path == SUMMARY for file in client.list_artifacts(run_id)):
        summary = read_json(Path(client.download_artifacts(run_id, SUMMARY)), "mlflow-uri")
        rows = [TrialRow.from_json(row) for row in summary["trials"]]
        metric, scores = summary["metric"], summary["reference"]
        reference = {f"teacher, {s['steps']} steps": float(s["distance"]) for s in scores if s["steps"] > 1}
        verdict, values = summary["verdict"], summary["importances"]
        return RecordedSweep(tags[SWEEP_TAG], metric, rows, reference, verdict, values, None, run_id, client)
    children = client.search_runs([parent.info.experiment_id], f"tags.`{PARENT_TAG}` = '{run_id}'", max_results=5000)
    metric = tags.get("tract_ray.metric", "distance")
    rows = [_row(child, metric) for child in children if "." not in child.data.tags[TRIAL_TAG]]  # first seeds
    return RecordedSweep(tags[SWEEP_TAG], metric, sorted(rows, key=lambda r: r.name), run_id=run_id, _client=client)


def _metric_of(trials: Path, rows: list[TrialRow]) -> str:
    """What a sweep without a summary measures, as its first finished trial says."""
    for row in rows:
        if (trials / row.name / RESULT).exists():
            return str(read_json(trials / row.name / RESULT, "sweep")["metric"])
    return "distance"


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
