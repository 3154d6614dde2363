"""The commands that bring models in from elsewhere and hand them on: import-teacher and export."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Annotated

import torch
import typer

from tract_ray.config import choose, require, to_dict
from tract_ray.data import dataset_info, datasets
from tract_ray.diffusion import predictions
from tract_ray.evaluation import fixed_noise, save_grid
from tract_ray.files import require_file_place, require_local, require_writable
from tract_ray.networks import count_parameters, importing
from tract_ray.networks.exporting import FORMATS, export_network
from tract_ray.networks.importing.diffusers import weights_file
from tract_ray.training import Model, NetworkConfig, load_model
from tract_ray.training.model import check_free
from tract_ray.training.model_card import provenance_of, write_card
from tract_ray.training.paths import absolute_dataset

app = typer.Typer()


@app.command()
def import_teacher(
    source: Annotated[
        str,
        typer.Argument(
            help="EDM pickle, flax checkpoint, diffusers folder or its owner/name on the Hugging Face hub, or a "
            "safetensors file of `export`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    image_size: Annotated[int | None, typer.Option(help="Pixels a side, where the source does not say.")] = None,
    prediction: Annotated[str | None, typer.Option(help="x0, eps, v or both, where the source does not say.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set it was trained on, for distill and evaluate.")] = None,
    look: Annotated[bool, typer.Option(help="Sample a few images, and write them beside the folder.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else to standard output.")] = False,
) -> None:
    """Turn a teacher from elsewhere into a model folder. No code in the file is run."""
    out = out.expanduser()
    check_free(out)
    require(image_size is None or image_size > 0, "image-size", f"must be positive, got {image_size}")
    if prediction:
        choose("prediction", prediction, predictions)
    place = importing.locate(source)
    teacher = importing.import_teacher(place, image_size=image_size, prediction=prediction)
    size, found = teacher.shape[1], teacher.prediction
    require(image_size in (None, size), "image-size", f"{source} makes images of {size} pixels, not {image_size}")
    require(prediction in (None, found), "prediction", f"{source} predicts {found}, not {prediction}")
    if dataset:
        _check_dataset(dataset, teacher)
    file = weights_file(place) if place.is_dir() else place
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    sampler, steps = teacher.sampling
    model = Model(
        denoiser=teacher.denoiser(),
        network=NetworkConfig(name=teacher.network, options=to_dict(teacher.options)),
        shape=teacher.shape,
        steps=steps,
        num_classes=teacher.num_classes,
        times=list(teacher.times) if teacher.times else None,
        sampler=sampler,
        dataset=absolute_dataset(dataset) if dataset else "",
        about={"source": Path(source).expanduser().absolute().name, "sha256": digest},
    )
    picture = _look(model, out) if look else None
    model.save(out)
    parameters = count_parameters(model.denoiser.module)
    if as_json:
        described = {"parameters": parameters, "schedule": teacher.schedule, "prediction": found}
        fields = ("network", "shape", "num_classes", "sampler", "steps", "dataset", "about")
        described |= {name: to_dict(getattr(model, name)) for name in fields}
        print(json.dumps({"teacher": str(out), **described}, indent=2))
        return
    shape = "x".join(map(str, model.shape))
    classes = f", {model.num_classes} classes" if model.num_classes else ""
    print(
        f"teacher: {out}\n{teacher.network}, {parameters:,} parameters, {shape}{classes}, {found}, {teacher.schedule}\n"
        f"sampled in {model.described_steps()}"
    )
    if picture:
        print(f"look at its samples, they should resemble its data: {picture}")
    print(f"distil it with: tract-ray distill --teacher {shlex.quote(str(out))}{_data_of(model)}")


def _look(model: Model, out: Path) -> Path:
    """A picture of a few samples in few steps; an `InputError` where they are no numbers."""
    count, steps = (4, 8) if count_parameters(model.denoiser.module) > 100_000_000 else (8, 16)
    labels = torch.arange(count) % model.num_classes if model.num_classes else None
    images = model.sample(fixed_noise(0, 0, count, model.shape), labels, None if model.times else steps)
    require(bool(images.isfinite().all()), "teacher", "its samples are not finite numbers; the weights are damaged")
    return save_grid(images, out.with_name(f"{out.name}.png"), count)


def _data_of(model: Model) -> str:
    """What `distill` must be told of the data, where the model does not say it."""
    if model.dataset:
        return ""
    named = [info.name for info in datasets.values() if info.shape == model.shape]
    return f" --dataset {'|'.join([*named, f'folder:PATH@{model.shape[-1]}'])}"


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Model folder of a teacher or a student.")],
    format: Annotated[str, typer.Option(help=f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}.")],
    out: Annotated[Path, typer.Option(help="File to write; for diffusers a folder.")],
    steps: Annotated[int | None, typer.Option(help="The sampler's steps; default: a student's own.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddim, euler or ancestral; default: its own.")] = None,
    licence: Annotated[str, typer.Option(help="Licence for the model card; the teacher's and the data's bind it.")] = (
        "unknown"
    ),
) -> None:
    """Write a model for other programs, with its card: weights, its sampler as a graph, or a folder for diffusers."""
    choose("format", format, FORMATS)
    if format == "diffusers":
        require_local(out, "out")
        require(not out.is_file(), "out", f"{out} is a file; diffusers needs a folder")
        require_writable(out.parent, "out")
    else:
        require_file_place(out, "out")
    model = load_model(checkpoint).resampled(steps, sampler)
    named = model.times is not None or steps is not None or format == "safetensors"
    require(named, "steps", f"{checkpoint} samples in any number of steps and {format} in one; name it with --steps")
    path = export_network(
        model.denoiser,
        model.shape,
        out,
        format,
        steps=model.steps,
        times=model.own_times(),
        sampler=model.sampler,
        num_classes=model.num_classes,
        network=model.network.name,
        options=model.network.options,
        about=provenance_of(model, model.steps),
    )
    card = write_card(model, path, format, model.steps, licence)
    print(f"{path}: {format}, {model.described_steps()} per image\n{card}: its card")


def _check_dataset(name: str, teacher: importing.ImportedTeacher) -> None:
    info = dataset_info(name)
    require(
        info.shape == teacher.shape, "dataset", f"{name} has images {info.shape}, the teacher makes {teacher.shape}"
    )
    require(
        teacher.num_classes in (0, info.num_classes),
        "dataset",
        f"{name} has {info.num_classes} classes, the teacher {teacher.num_classes}",
    )
