"""The end of a sweep: `summary.json`, plots, a sample grid beside the teacher's, and the table a person reads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import optuna
import torch
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tract_ray.analysis.ledger import show_ledger
from tract_ray.analysis.plots import plots
from tract_ray.analysis.rows import TrialRow, finished, importances, objectives, short
from tract_ray.analysis.statistics import interval, pareto_front
from tract_ray.evaluation import fixed_noise, image_grid
from tract_ray.evaluation.sample_grid import grid_scale
from tract_ray.files import write_json
from tract_ray.search.space import ROW
from tract_ray.sweep.definition import SweepResult
from tract_ray.training import Model, Paths, TeacherConfig, find_teacher, load_model


def write_report(
    folder: Path, study: optuna.Study, result: SweepResult, best: Path, taught: TeacherConfig, paths: Paths
) -> None:
    """Write `summary.json` and `plots/*.png` into the sweep's folder, `samples.png` of the student in `best`."""
    values = importances(study)
    metric = result.reference[0].metric
    summary = {
        "name": result.name,
        "metric": metric,
        "trials": [row.to_json() for row in result.rows],
        "reference": [asdict(score) for score in result.reference],
        "importances": values,
        "best": finished(result.rows)[0].name,
        "ledger": asdict(result.ledger),
        "verdict": result.verdict,
    }
    write_json(folder / "summary.json", summary)
    (folder / "plots").mkdir(exist_ok=True)
    longest = max(result.reference, key=lambda score: score.steps)
    reference = {longest.label: longest.distance}
    for name, figure in plots(result.rows, metric, values, reference).items():
        figure.savefig(folder / "plots" / f"{name}.png")
    student = load_model(best)
    teacher = find_teacher(taught, paths)  # where it is now: `about` names where it was when the run began
    if teacher is None:
        return
    steps = min(64, teacher.steps) if teacher.times is None else teacher.steps
    picture = compare(teacher, student, teacher_steps=steps)
    picture.save(folder / "plots" / "samples.png")


def compare(teacher: Model, student: Model, *, teacher_steps: int, columns: int = 16, seed: int = 0) -> Image.Image:
    """Rows of images from the same noise: the teacher's in many steps above the student's in few."""
    noise = fixed_noise(seed, 0, columns * 2, student.shape)
    labels = torch.arange(len(noise)) % student.num_classes if student.num_classes else None
    above, below = teacher.sample(noise, labels, steps=teacher_steps), student.sample(noise, labels)
    pairs = [row for k in range(2) for row in (above[k * columns :][:columns], below[k * columns :][:columns])]
    return image_grid(torch.cat(pairs), columns, max(1, grid_scale(student.shape[-1]) // 2))


def show_result(result: SweepResult, console: Console) -> None:
    """The table: reference rows, then the trials, best first; what the best is worth, and what all of it cost."""
    metric = result.reference[0].metric
    table = Table(
        title=f"{result.name}: {metric}, smaller is better",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    named = any(ROW in row.params for row in result.rows)
    names = [] if named else list(dict.fromkeys(k for row in result.rows for k in row.changes))
    several = any(len(row.seeds) > 1 for row in result.rows)
    best = finished(result.rows)
    sizes = len({row.parameters for row in best}) > 1
    columns = ["", *(n.rpartition(".")[2] for n in names), *(["parameters"] if sizes else []), "best mu_i", "images"]
    columns += [] if named else ["selection"]
    for column in [*columns, "distance", *(["95% interval"] if several else [])]:
        table.add_column(column, justify="right" if column else "left", no_wrap=not column, overflow="fold")
    before, after = [""] * (columns.index("images") - 1), [] if named else [""]
    for score in sorted(result.reference, key=lambda s: -s.steps):
        table.add_row(score.label, *before, f"n={score.samples}", *after, f"{score.distance:.2f}", style="dim")
    table.add_section()
    stopped = sorted((r for r in result.rows if r.status != "finished"), key=lambda r: r.name)
    for row in result.rows if named else [*best, *stopped]:  # a list has its own order
        table.add_row(*_cells(row, names, sizes, chosen=not named))
    console.print()
    console.print(table)
    for row in result.rows:
        if row.reason:
            console.print(f"{row.label} failed: {row.reason}", markup=False)
    if not named:
        console.print("in the order of `selection`; `distance` is of noise that chose nothing")
    if any(row.anchor for row in result.rows) and not named:
        console.print("* anchor: published values and extremes, run first")
    if sizes:
        front = ", ".join(best[k].label for k in pareto_front([objectives(row) for row in best]))
        console.print(f"Pareto front of distance and parameters, the smallest student first: {front}")
    if result.verdict:
        console.print(result.verdict)
    show_ledger(result.ledger, console)


def _cells(row: TrialRow, names: list[str], sizes: bool, chosen: bool) -> list[str]:
    label = row.label + ("*" if row.anchor and ROW not in row.params else "")
    values = [short(row.changes[n]) if n in row.changes else "" for n in names]
    if sizes:
        values.append(f"{row.parameters:,}" if row.parameters else "")
    if row.status != "finished":
        return [label, *values, "", f"{row.samples:,}", *([""] if chosen else []), row.status.removesuffix(" early")]
    selection = [f"{row.chosen_by:.2f}"] if chosen else []
    cells = [label, *values, f"{row.mu_i:.5g}", f"{row.samples:,}", *selection, f"{row.distance:.2f}"]
    if len(row.seeds) > 1:
        own = interval(row.seeds)
        cells.append(f"{own.low:.2f} to {own.high:.2f}")
    return cells
