"""The commands that train: teacher and distill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import tract_ray as tr
from tract_ray.api.machine import worker_on
from tract_ray.api.plan import planned
from tract_ray.api.runs import carry_out
from tract_ray.cli.arguments import (
    SCORED,
    AsJson,
    CheckpointSeconds,
    DataRoot,
    Dataset,
    Device,
    Features,
    FromRecipe,
    MicroBatch,
    Network,
    OnDiskFull,
    Samples,
    Setting,
    SkipDamaged,
    Storage,
    Threads,
    numbers,
    progress,
    settings,
    show,
)
from tract_ray.config import config_hash, to_dict
from tract_ray.data.on_disk import with_options
from tract_ray.evaluation.extractors import extractors
from tract_ray.training import Paths
from tract_ray.training.forecast import forecast
from tract_ray.training.precision import resolve_precision
from tract_ray.training.recipes import find_recipe

app = typer.Typer()


@app.command()
def teacher(
    dataset: Dataset = None,
    recipe: FromRecipe = None,
    network: Network = None,
    samples: Samples = None,
    batch: Annotated[int | None, typer.Option(help="Batch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    ema: Annotated[float | None, typer.Option(help="Average of the weights, in [0, 1).")] = None,
    conditional: Annotated[bool, typer.Option(help="Condition on the class labels.")] = False,
    label_dropout: Annotated[float | None, typer.Option(help="Share of labels left out, for guidance.")] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the model folder here.")] = None,
    storage: Storage = None,
    data_root: DataRoot = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    on_disk_full: OnDiskFull = "wait",
    micro_batch: MicroBatch = 0,
    skip_damaged: SkipDamaged = False,
    device: Device = None,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Train a teacher, or find the one that was trained with the same settings."""
    model = tr.train_teacher(
        with_options(dataset, skip_damaged) if dataset else None,
        recipe=recipe,
        network=network,
        samples=samples,
        batch=batch,
        lr=lr,
        ema=ema,
        conditional=conditional,
        label_dropout=label_dropout,
        seed=seed,
        out=out,
        storage=storage,
        data_root=data_root,
        checkpoint_seconds=checkpoint_seconds,
        on_disk_full=on_disk_full,
        micro_batch=micro_batch,
        device=device,
        threads=threads,
        progress=progress(as_json),
    )
    config = model.network.about["config"]
    result = {
        "teacher": str(model.folder),
        "parameters": model.parameters,
        "key": config_hash(config),
        "config": config,
    }
    show(result, as_json, f"teacher: {model.folder}")


@app.command()
def distill(
    dataset: Dataset = None,
    recipe: FromRecipe = None,
    method: Annotated[
        str | None, typer.Option(help="See `tract-ray methods`; default: what suits the teacher.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Model folder; default: train the data set's teacher.")] = None,
    teacher_samples: Annotated[str | None, typer.Option(help="Training images of that default teacher.")] = None,
    network: Network = None,
    student: Annotated[str | None, typer.Option(help="Network preset of the student; default: the teacher's.")] = None,
    students: Annotated[
        str | None, typer.Option(help="A preset for each phase, - for that of the phase before: -,small,-.")
    ] = None,
    student_from: Annotated[
        str, typer.Option(help="Where it starts: teacher (what they share), random, or a model folder.")
    ] = "teacher",
    time_schedule: Annotated[str | None, typer.Option(help="Steps before and after each phase: 1024,32,1.")] = None,
    samples: Samples = None,
    batch: Annotated[int | None, typer.Option(help="Batch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    mu_s: Annotated[float | None, typer.Option(help="Self-teacher average, in [0, 1).")] = None,
    mu_i: Annotated[float | None, typer.Option(help="Inference average, in [0, 1); default: the heuristic.")] = None,
    mu_i_bank: Annotated[str | None, typer.Option(help="Further mu_i to score: 0,0.9,0.99.")] = None,
    pairs: Setting = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the networks in training: float32, bf16, or auto (bf16 on GPUs).")
    ] = None,
    evaluation_samples: Annotated[
        int | None, typer.Option(help=f"Images that score the student; default: {SCORED}.")
    ] = None,
    rung_samples: Annotated[int | None, typer.Option(help="Images that score it on the way (1000).")] = None,
    features: Features = "",
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same one continues it.")] = None,
    storage: Storage = None,
    data_root: DataRoot = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    on_disk_full: OnDiskFull = "wait",
    micro_batch: MicroBatch = 0,
    skip_damaged: SkipDamaged = False,
    device: Device = None,
    threads: Threads = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost; train nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Distil a teacher into a student of few steps, score it, and write its model folder."""
    own = {"mu_s": mu_s, "mu_i": mu_i, "mu_i_bank": numbers("mu_i_bank", mu_i_bank, float), **settings(pairs)}
    paths = Paths.at(storage, data_root, checkpoint_seconds, on_disk_full, micro_batch)
    worker = worker_on(device, threads)
    if precision:
        own["precision"] = resolve_precision(precision, worker.device)
    run = planned(
        with_options(dataset, skip_damaged) if dataset else None,
        recipe=recipe,
        method=method,
        teacher=teacher,
        teacher_samples=teacher_samples,
        network=network,
        student=student,
        students=students or (),
        student_from=student_from,
        time_schedule=time_schedule,
        samples=samples,
        batch=batch,
        lr=lr,
        evaluation_samples=evaluation_samples,
        rung_samples=rung_samples,
        features=features,
        seed=seed,
        settings=own,
    )
    scaling = find_recipe(recipe).scaling(run.teacher.dataset, network) if recipe else ""
    if scaling:
        print(scaling, file=progress(as_json))
    if dry_run:
        foreseen = forecast(run, paths, worker)
        show({**foreseen.to_json(), "config": to_dict(run)}, as_json, "\n".join(foreseen.lines()))
        return
    result = carry_out(run, paths, worker, out=out, progress=progress(as_json)).result
    assert result is not None
    lines = [
        f"student: {result.student}",
        f"{result.metric} {result.distance:.3f} at {result.steps} step(s), mu_i {result.mu_i:.6g}",
    ]
    if len(result.distances) > 1:
        lines += [f"  mu_i {mu:<10.6g} {d:9.3f}" for mu, d in sorted(result.distances.items())]
    kind = extractors[run.evaluation.on(run.teacher.dataset).features]
    if kind.note:
        lines.append(f"note: {result.metric} {kind.note}")
    show(result.to_json(), as_json, "\n".join(lines))
