"""Records as a run would write them, and what MLflow made of them."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient
from PIL import Image

from tract_ray.training.record import Record


def write_lines(folder: Path, first: int, last: int, *, keep: int = 0) -> None:
    """Marks `first … last - 1` of a record: each a loss, a distance and a picture, at 64 images a mark."""
    record = Record(folder, keep)
    for mark in range(first, last):
        record.metrics(64 * mark, {"loss": 1 / (mark + 1)})
        record.metrics(64 * mark, {"fid_digits": 100.0 - mark, "fid_digits/mu_i_0.5": 101.0 - mark})
        record.image(64 * mark, "samples", Image.new("RGB", (20, 10), (mark % 256, 0, 0)))


LINES_PER_MARK = 3


def history(client: MlflowClient, run_id: str, key: str) -> list[tuple[int, float]]:
    """Every point of a metric, (step, value), in order; a point that was sent twice would be here twice."""
    return sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))


def expected(key: str, marks: int) -> list[tuple[int, float]]:
    values = {
        "loss": lambda m: 1 / (m + 1),
        "fid_digits": lambda m: 100.0 - m,
        "fid_digits/mu_i_0.5": lambda m: 101.0 - m,
    }
    return [(64 * mark, values[key](mark)) for mark in range(marks)]


def pictures(client: MlflowClient, run_id: str) -> list[tuple[str, int]]:
    """(name, step) of every picture that the UI shows for a run, in order."""
    names = [Path(file.path).name for file in client.list_artifacts(run_id, "images")]
    return sorted((n.split("+")[0], int(n.split("+")[2])) for n in names if n.endswith(".png"))
