"""What is answered: a page, samples as JSON and as a picture, and what the model is."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.middleware.trustedhost import TrustedHostMiddleware
from torch import Tensor

from tract_ray.api.model import Model
from tract_ray.config import InputError, RunFailed, require
from tract_ray.evaluation import image_grid
from tract_ray.evaluation.sample_grid import grid_scale

MOST = 1024
"""Images of one request."""
HOSTS = ["127.0.0.1", "localhost"]
_PAGE = Path(__file__).with_name("page.html")


class Asked(BaseModel):
    """What to draw; the options of `tract-ray sample`. Other names are refused."""

    model_config = ConfigDict(extra="forbid")
    seed: int = 0
    count: int = 16
    label: int | None = None
    steps: int | None = None


class AskedAsJson(Asked):
    """`png` gives a base64 text for each image, `arrays` nested lists `(count, C, H, W)` in [-1, 1]."""

    format: Literal["png", "arrays"] = "png"


class AskedAsGrid(Asked):
    """A picture of all of them, `columns` in a row."""

    columns: int = 8


class Drawing:
    """Draws with one model, one request at a time; `images` counts."""

    def __init__(self, model: Model) -> None:
        self.model, self.images = model, 0
        self._one = threading.Lock()

    def __call__(self, asked: Asked) -> tuple[Tensor, float]:
        """Images `(count, C, H, W)` in [-1, 1], and the seconds that they took, waiting not counted."""
        require(1 <= asked.count <= MOST, "count", f"must be from 1 to {MOST:,}, got {asked.count}")
        with self._one:
            begun = time.perf_counter()
            images = self.model.sample(asked.count, steps=asked.steps, seed=asked.seed, labels=asked.label)
            took = time.perf_counter() - begun
            self.images += asked.count
        return images.float(), took


def make_app(drawing: Drawing, name: str) -> FastAPI:
    """The application. Bad requests are answered with status 400 and one line: `{"error": "label: must be …"}`."""
    # The library's own pages of documentation would be fetched from elsewhere.
    app = FastAPI(title="tract-ray", docs_url=None, redoc_url=None)
    # A page of another site that names this address otherwise is none of ours.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    model = drawing.model

    def timing(took: float, asked: Asked) -> dict[str, Any]:
        steps = asked.steps or model.steps
        return {"seconds": round(took, 6), "steps": steps, "nfe": model.network.nfe(steps), "sampler": model.sampler}

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return _PAGE.read_text(encoding="utf-8")

    @app.get("/about")
    def about() -> dict[str, Any]:
        return {"name": name, **described(model)}

    @app.post("/sample")
    def sample(asked: AskedAsJson) -> dict[str, Any]:
        images, took = drawing(asked)
        shown = images.tolist() if asked.format == "arrays" else [_png(image) for image in images]
        return {"images": shown, "shape": list(images.shape), "format": asked.format, **timing(took, asked)}

    @app.get("/samples.png", response_class=Response)
    def samples(asked: Annotated[AskedAsGrid, Query()]) -> Response:
        require(1 <= asked.columns <= MOST, "columns", f"must be from 1 to {MOST:,}, got {asked.columns}")
        images, took = drawing(asked)
        file = BytesIO()
        image_grid(images, asked.columns, grid_scale(model.shape[-1])).save(file, "PNG")
        told = {f"x-{key}": str(value) for key, value in timing(took, asked).items()}
        return Response(file.getvalue(), media_type="image/png", headers={**told, "cache-control": "no-store"})

    @app.exception_handler(InputError)
    def refused(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=400)

    @app.exception_handler(RunFailed)
    def failed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=500)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse({"error": _line(error.errors()[0])}, status_code=400)

    return app


def described(model: Model) -> dict[str, Any]:
    """What a person and a program want to know of the model."""
    return {
        "network": model.network.network.name,
        "parameters": model.parameters,
        "shape": list(model.shape),
        "classes": model.num_classes,
        **model.network.sampling(),
        "dataset": model.network.dataset,
        "metric": model.metric,
        "distance": model.distance,
    }


def _line(error: Mapping[str, Any]) -> str:
    """`count: input should be a valid integer, …`."""
    field = ".".join(str(part) for part in error["loc"][1:]) or "request"
    said = str(error["msg"])
    return f"{field}: {said[:1].lower()}{said[1:]}"


def _png(image: Tensor) -> str:
    """A base64 text of the image, `(C, H, W)`, in its own size."""
    file, (height, width) = BytesIO(), image.shape[-2:]
    framed = image_grid(image[None], 1)
    left, top = (framed.width - width) // 2, (framed.height - height) // 2
    framed.crop((left, top, left + width, top + height)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
