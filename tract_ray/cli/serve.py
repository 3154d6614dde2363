"""The command that shows a model on a page: serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import tract_ray as tr
from tract_ray.cli.arguments import Checkpoint, Device, Sampler, SamplerSetting, Steps, Threads, settings
from tract_ray.config import InputError

app = typer.Typer()


@app.command()
def serve(
    checkpoint: Checkpoint,
    port: Annotated[int, typer.Option(help="Port on this machine; 0: any free one.")] = 8000,
    steps: Steps = None,
    sampler: Sampler = None,
    sampler_settings: SamplerSetting = None,
    device: Device = None,
    threads: Threads = 0,
) -> None:
    """Show a model's samples on a page of this machine, and answer requests for them as JSON.

    POST /sample takes {"seed": 0, "count": 16, "label": 3, "steps": 1, "format": "png" or "arrays"}; GET /samples.png
    the same as a query. The images are those of `tract-ray sample` with the same seed.
    """
    try:
        from tract_ray.serving.app import Drawing, make_app
        from tract_ray.serving.run import LOOPBACK, listen, serve_until_stopped
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("fastapi", "uvicorn", "starlette", "pydantic"):
            raise
        raise InputError(f"serve: {error.name} is missing; pip install 'tract-ray[serve]'") from None
    model = tr.load_model(checkpoint, device=device, threads=threads)
    own = settings(sampler_settings, "sampler-set") or None
    model.network = model.network.resampled(steps, sampler, own)
    place = listen(port)
    model.sample(1, steps=1 if model.network.times is None else None)  # the first one takes longer
    drawing = Drawing(model)
    at = f"http://{LOOPBACK}:{place.getsockname()[1]}"
    print(f"{checkpoint}: {model.network.described_steps()} per image, at {at} (Ctrl-C stops)", flush=True)
    serve_until_stopped(make_app(drawing, Path(checkpoint).name), place)
    print(f"stopped; {drawing.images:,} images were drawn", flush=True)
