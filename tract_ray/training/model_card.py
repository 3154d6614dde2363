"""What goes with a model that is handed on: where it comes from, for programs and for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tract_ray import __version__
from tract_ray.evaluation import fixed_noise, save_grid
from tract_ray.networks import count_parameters
from tract_ray.networks.exporting_diffusers import sampling_code
from tract_ray.networks.exporting_pipeline import CODE as PIPELINE
from tract_ray.training.model import Model

CARD, SAMPLES, MARK = "README.md", "samples.png", "<!-- written by tract-ray export -->"
LOOKED_AT = 64  # steps of a teacher in the card's picture
_ONNX = """import numpy, onnxruntime

session = onnxruntime.InferenceSession("{file}")
images = session.run(["images"], {{"noise": numpy.random.randn(16, {shape}).astype("float32"){labels}}})[0]"""
_TORCH = """import torch

student = torch.export.load("{file}").module()
images = student(torch.randn(16, {shape}){labels})"""
_OWN = """import tract_ray as tr

# once: tract-ray import-teacher {file} --out student
images = tr.load_model("student").sample(16)"""
_LABELS = {
    "onnx": ', "labels": numpy.arange(16) % {classes}',
    "torch_export": ", labels=torch.arange(16) % {classes}",
    "diffusers": ", labels=[i % {classes} for i in range(16)]",
}


def provenance_of(model: Model, steps: int) -> dict[str, str]:
    """Where a model comes from, in strings, as a file's metadata: what is not known is left out."""
    about, config = model.about, model.about.get("config", {})
    method = config.get("method", {})
    known: dict[str, Any] = {
        "tract_ray": __version__,
        "network": model.network.name,
        "parameters": count_parameters(model.denoiser.module),
        "shape": "x".join(map(str, model.shape)),
        "classes": model.num_classes,
        "steps": steps,
        "sampler": model.sampler,
        "times": json.dumps(model.times) if model.times else None,
        "prediction": model.denoiser.prediction,
        "schedule": model.denoiser.schedule.name,
        "dataset": model.dataset,
        "teacher": Path(about["teacher"]).name if about.get("teacher") else about.get("source"),
        "teacher_sha256": about.get("sha256"),
        "method": method.get("kind"),
        "samples": method.get("samples"),
        "mu_i": about.get("mu_i"),
        "metric": about.get("metric"),
        "distance": about.get("distance"),
        "distance_of": config.get("evaluation", {}).get("samples"),
    }
    return {name: str(value) for name, value in known.items() if value not in (None, "")}


def write_card(model: Model, out: Path, format: str, steps: int, licence: str = "unknown") -> Path:
    """A card in the exported folder `out`, or beside the file `out`; returns where it lies. Foreign files stay."""
    folder, own = (out, "") if out.is_dir() else (out.parent, f"{out.stem}.")
    plain = folder / CARD
    free = out.is_dir() or not plain.exists() or MARK in plain.read_text(encoding="utf-8", errors="replace")
    card = plain if free else folder / f"{own}{CARD}"
    picture = folder / (SAMPLES if free else f"{own}{SAMPLES}")
    save_grid(_samples(model, steps), picture)
    card.write_text(_card(model, out, format, steps, licence, picture.name), encoding="utf-8")
    return card


def _samples(model: Model, steps: int, count: int = 16) -> torch.Tensor:
    device = next(model.denoiser.module.parameters()).device
    labels = torch.arange(count, device=device) % model.num_classes if model.num_classes else None
    own = min(steps, LOOKED_AT) if model.times is None else None
    return model.sample(fixed_noise(0, 0, count, model.shape).to(device), labels, own)


def _card(model: Model, out: Path, format: str, steps: int, licence: str, picture: str) -> str:
    known = provenance_of(model, steps)
    distance = (
        f"{float(known['distance']):.3f} ({known['metric']}, {known['distance_of']} images)"
        if ("distance" in known and "distance_of" in known)
        else "not measured"
    )
    rows = {
        "Teacher": known.get("teacher", "unknown"),
        "Method": f"{known['method']}, {int(known['samples']):,} training images" if "method" in known else "none",
        "Data": known.get("dataset", "unknown"),
        "Distance": distance,
        "Network": f"{known['network']}, {int(known['parameters']):,} parameters",
        "Images": known["shape"] + (f", {known['classes']} classes" if model.num_classes else ""),
        "Network calls an image": str(steps),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    labels = _LABELS.get(format, "").format(classes=model.num_classes) if model.num_classes else ""
    code = {"onnx": _ONNX, "torch_export": _TORCH, "safetensors": _OWN, "diffusers": PIPELINE}[format]
    code = code.format(file=out.name, shape=", ".join(map(str, model.shape)), labels=labels)
    if format == "diffusers" and not (out / "pipeline.py").exists():  # diffusers' own classes
        code = sampling_code(steps, model.num_classes > 0)
    library = {"diffusers": "diffusers", "onnx": "onnx"}.get(format, "pytorch")
    return f"""---
license: {licence}
library_name: {library}
tags: [diffusion, distillation]
---
{MARK}
# {out.stem}

A diffusion model distilled with tract-ray {known["tract_ray"]}. It samples in {steps} step(s), and only in this number.

| | |
|---|---|
{table}

![samples]({picture})

```python
{code}
```
"""
