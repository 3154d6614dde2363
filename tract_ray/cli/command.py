"""The `tract-ray` command. It needs only the core: Ray, MLflow and Optuna belong to the sweeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from tract_ray.cli import lists, models, reconstruct
from tract_ray.config import InputError, config_hash, parse_count, require, to_dict
from tract_ray.data import load_dataset
from tract_ray.evaluation import Evaluator, fixed_noise, save_grid
from tract_ray.networks import count_parameters
from tract_ray.terminal import Progress, run_app
from tract_ray.training import (
    EvaluationConfig,
    Model,
    NetworkConfig,
    Paths,
    RunConfig,
    TeacherConfig,
    Worker,
    default_device,
    load_model,
    run_distillation,
    teacher_folder,
    train_teacher,
)
from tract_ray.training.recipes import method_recipe, teacher_recipe

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Distil diffusion models into samplers of one or a few steps. Sweeps are the scripts in sweeps/.",
)

Dataset = Annotated[str, typer.Option(help="Data set: digits, digits16, cifar10, imagenet64 or folder:PATH@SIZE.")]
Network = Annotated[str | None, typer.Option(help="Network preset; default: the data set's.")]
Storage = Annotated[Path | None, typer.Option(help="Folder of runs and caches; default: runs.")]
DataRoot = Annotated[str | None, typer.Option(help="Where downloaded data sets live.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: the GPU where there is one.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0: torch's own choice.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else to standard output.")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the method, NAME=VALUE (mu_s=0.9); repeatable."),
]


@app.command()
def teacher(
    dataset: Dataset = "digits",
    network: Network = None,
    samples: Annotated[str | None, typer.Option(help="Training images: 128000, 64k, 96M.")] = None,
    batch: Annotated[int | None, typer.Option(help="Batch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    ema: Annotated[float | None, typer.Option(help="Average of the weights, in [0, 1).")] = None,
    conditional: Annotated[bool, typer.Option(help="Condition on the class labels.")] = False,
    label_dropout: Annotated[float | None, typer.Option(help="Share of labels left out, for guidance.")] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the model folder here.")] = None,
    storage: Storage = None,
    data_root: DataRoot = None,
    device: Device = None,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Train a teacher, or find the one that was trained with the same settings."""
    paths, worker = Paths.at(storage, data_root), _worker(device, threads)
    count = parse_count("samples", samples) if samples else None
    config = teacher_recipe(
        dataset,
        network,
        conditional=conditional,
        seed=seed,
        samples=count,
        batch=batch,
        lr=lr,
        ema=ema,
        label_dropout=label_dropout,
    )
    with _progress("teacher", config.training.samples, as_json) as progress:
        size = config.training.batch
        model = train_teacher(
            config, paths, worker, lambda step, loss: progress.update("teacher", step * size, f"loss {loss:.4f}")
        )
    folder = model.save(out) if out else teacher_folder(config, paths)
    result = {
        "teacher": str(folder),
        "parameters": count_parameters(model.denoiser.module),
        "key": config_hash(config),
        "config": to_dict(config),
    }
    _show(result, as_json, f"teacher: {folder}")


@app.command()
def distill(
    dataset: Dataset = "digits",
    method: Annotated[str, typer.Option(help="See `tract-ray methods`.")] = "tract",
    teacher: Annotated[str | None, typer.Option(help="Model folder; default: train the data set's teacher.")] = None,
    teacher_samples: Annotated[str | None, typer.Option(help="Training images of that default teacher.")] = None,
    network: Network = None,
    student: Annotated[str | None, typer.Option(help="Network preset of the student; default: the teacher's.")] = None,
    student_from: Annotated[
        str, typer.Option(help="Where it starts: teacher (what they share), random, or a model folder.")
    ] = "teacher",
    time_schedule: Annotated[str | None, typer.Option(help="Steps before and after each phase: 1024,32,1.")] = None,
    samples: Annotated[str | None, typer.Option(help="Training images: 128000, 64k, 96M.")] = None,
    batch: Annotated[int | None, typer.Option(help="Batch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    mu_s: Annotated[float | None, typer.Option(help="Self-teacher average, in [0, 1).")] = None,
    mu_i: Annotated[float | None, typer.Option(help="Inference average, in [0, 1); default: the heuristic.")] = None,
    mu_i_bank: Annotated[str | None, typer.Option(help="Further mu_i to score: 0,0.9,0.99.")] = None,
    settings: Setting = None,
    evaluation_samples: Annotated[int, typer.Option(help="Images that score the student.")] = 4000,
    rung_samples: Annotated[int, typer.Option(help="Images that score it on the way, twice in each phase.")] = 1000,
    features: Annotated[str, typer.Option(help="classifier, inception_clean or inception_legacy.")] = "",
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same one continues it.")] = None,
    storage: Storage = None,
    data_root: DataRoot = None,
    device: Device = None,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Distil a teacher into a student of few steps, score it, and write its model folder."""
    paths, worker = Paths.at(storage, data_root), _worker(device, threads)
    if teacher:  # a run uses its teacher's data, so the recipe is for them too
        dataset = load_model(teacher, "teacher").dataset or dataset
    changes: dict[str, Any] = {
        "time_schedule": tuple(_numbers("time_schedule", time_schedule, int)) if time_schedule else None,
        "samples": parse_count("samples", samples) if samples else None,
        "batch": batch,
        "lr": lr,
        "mu_s": mu_s,
        "mu_i": mu_i,
        "mu_i_bank": tuple(_numbers("mu_i_bank", mu_i_bank, float)) if mu_i_bank else None,
        **_settings(settings or []),
    }
    count = parse_count("teacher-samples", teacher_samples) if teacher_samples else None
    run = RunConfig(
        teacher=TeacherConfig(dataset=dataset, path=teacher)
        if teacher
        else teacher_recipe(dataset, network, samples=count),
        method=method_recipe(method, dataset, **changes),
        student=NetworkConfig(name=student) if student else None,
        student_from=student_from,
        evaluation=EvaluationConfig(samples=evaluation_samples, rung_samples=rung_samples, features=features),
        seed=seed,
    )
    folder = out or paths.storage / "distill" / f"{method}-{config_hash(run)}"
    with _progress(method, run.method.samples, as_json) as progress:
        size = run.method.batch
        result = run_distillation(
            run,
            paths,
            folder,
            worker=worker,
            report=lambda scores: progress.update("run", scores["samples"], f"distance {scores['distance']:.3f}"),
            on_step=lambda step, _, loss: progress.update("run", step * size),
        )
    lines = [
        f"student: {result.student}",
        f"{result.metric} {result.distance:.3f} at {result.steps} step(s), mu_i {result.mu_i:.6g}",
    ]
    if len(result.distances) > 1:
        lines += [f"  mu_i {mu:<10.6g} {d:9.3f}" for mu, d in sorted(result.distances.items())]
    _show(result.to_json(), as_json, "\n".join(lines))


@app.command()
def sample(
    checkpoint: Annotated[Path, typer.Argument(help="Model folder of a teacher or a student.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("samples.png"),
    count: Annotated[int, typer.Option(help="Number of images.")] = 64,
    steps: Annotated[int | None, typer.Option(help="Network calls per image; default: the model's own.")] = None,
    label: Annotated[int | None, typer.Option(help="Class of a conditional model; default: all in turn.")] = None,
    columns: Annotated[int, typer.Option(help="Images in a row.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    device: Device = None,
    threads: Threads = 0,
) -> None:
    """Write a PNG grid of samples."""
    require(count >= 1, "count", f"must be at least 1, got {count}")
    worker = _worker(device, threads)
    model = load_model(checkpoint).to(worker.device)
    noise = fixed_noise(seed, 0, count, model.shape).to(worker.device)
    labels = _labels(model, count, label, worker)
    images = torch.cat(
        [
            model.sample(part, None if labels is None else labels[first : first + len(part)], model.check_steps(steps))
            for first, part in zip(range(0, count, 256), noise.split(256), strict=True)
        ]
    )
    save_grid(images, out, columns)
    print(f"{out}: {count} images, {steps or model.steps} network call(s) each")


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Model folder of a teacher or a student.")],
    steps: Annotated[int | None, typer.Option(help="Network calls per image; default: the model's own.")] = None,
    samples: Annotated[int, typer.Option(help="Number of images.")] = 4000,
    features: Annotated[str, typer.Option(help="classifier, inception_clean or inception_legacy.")] = "",
    dataset: Annotated[str | None, typer.Option(help="Data to compare with; default: what it was trained on.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    storage: Storage = None,
    data_root: DataRoot = None,
    device: Device = None,
    threads: Threads = 0,
) -> None:
    """Score a model; the result is JSON."""
    worker, paths = _worker(device, threads), Paths.at(storage, data_root)
    model = load_model(checkpoint).to(worker.device)
    config, count = EvaluationConfig(features=features, samples=samples, seed=seed), model.check_steps(steps)
    name = dataset or model.dataset
    data = load_dataset(name, data_root).to(worker.device)
    require(data.shape == model.shape, "dataset", f"{name} has images {data.shape}, the model makes {model.shape}")
    evaluator = Evaluator(
        data, config.extractor(name), paths.cache, seed=seed, device=worker.device, conditional=model.num_classes > 0
    )
    distance = evaluator.distance(lambda noise, labels: model.sample(noise, labels, count), samples)
    print(json.dumps({**evaluator.describe(samples), "steps": count or model.steps, "distance": distance}, indent=2))


app.add_typer(models.app)
app.add_typer(reconstruct.app)
app.add_typer(lists.app)


def _worker(device: str | None, threads: int) -> Worker:
    if threads:
        require(threads > 0, "threads", f"must be positive, got {threads}")
        torch.set_num_threads(threads)
    if device is None:
        return Worker(device=default_device())
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: {device!r} does not work here ({str(error).splitlines()[0]})") from None
    return Worker(device=chosen)


def _progress(title: str, total: int, quiet: bool) -> Progress:
    return Progress(title, total, sys.stderr if quiet else sys.stdout)


def _numbers(field: str, text: str, kind: type) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{field}: {text!r} is not a list of numbers separated by commas") from None


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`["mu_s=0.9"]` -> `{"mu_s": 0.9}`; values are read as JSON where they are JSON, lists become tuples."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        require(bool(equals), "set", f"{pair!r} is not NAME=VALUE")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        require(value is not None, "set", f"{pair!r} would be left out; give a value")
        found[name.strip()] = tuple(value) if isinstance(value, list) else value
    return found


def _labels(model: Model, count: int, label: int | None, worker: Worker) -> torch.Tensor | None:
    if not model.num_classes:
        require(label is None, "label", "this model is not class-conditional")
        return None
    if label is None:
        return torch.arange(count, device=worker.device) % model.num_classes
    require(0 <= label < model.num_classes, "label", f"must be in 0..{model.num_classes - 1}, got {label}")
    return torch.full((count,), label, device=worker.device)


def _show(result: dict[str, Any], as_json: bool, text: str) -> None:
    print(json.dumps(result, indent=2) if as_json else text)


def main() -> None:
    """Entry point of the `tract-ray` command."""
    run_app(app)


if __name__ == "__main__":
    main()
