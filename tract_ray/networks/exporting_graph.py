"""A student's whole sampler as one graph, for ONNX and for `torch.export`: noise and labels in, images out."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tract_ray.config import InputError
from tract_ray.diffusion import Denoiser, predictions

# Beyond this the weights lie in a file of their own beside the graph: protobuf ends at 2 GiB.
_LARGEST_GRAPH = 1_500_000_000
LARGEST_BATCH = 63
"""Of a graph that cannot take any: diffusers' upsampling asks whether there are 64 images."""


class Sampler(nn.Module):
    """`sample_ddim` or `sample_ancestral` with its schedule turned into constants, float32.

    `(noise (B, C, H, W), labels (B,), step_noise (B, steps - 1, C, H, W))` -> images; labels of a conditional network
    alone, `step_noise` of an `ancestral` sampler of several steps. The state between steps is float64 as in the
    samplers; the networks run in their own precision.
    """

    def __init__(self, denoiser: Denoiser, nodes: Tensor, clip: bool, ancestral: bool = False) -> None:
        super().__init__()
        self.network = denoiser.module
        self.clip = clip
        self.added = len(nodes) - 2 if ancestral else 0
        self._view = predictions[denoiser.prediction]
        schedule = denoiser.schedule
        self._start = schedule.sigma(nodes[-1]).item()
        self._steps: list[tuple[float, ...]] = []
        for t, s in zip(nodes.flip(0)[:-1], nodes.flip(0)[1:], strict=True):
            a, b, a_next, b_next = (f(at).item() for at in (t, s) for f in (schedule.alpha, schedule.sigma))
            keep, deviation = b_next / b, 0.0
            if ancestral:  # x_s = keep x_t + make x0 + deviation xi, `ancestral_step` written out; the last ends at x0
                var_step = b**2 - (a / a_next) ** 2 * b_next**2
                keep, make = a / a_next * b_next**2 / b**2, a_next * var_step / b**2
                deviation = (var_step * b_next**2 / b**2) ** 0.5
                if len(self._steps) == len(nodes) - 2:
                    keep, make, deviation = 0.0, 1.0, 0.0
            else:
                make = a_next - keep * a
            self._steps.append((a, b, schedule.logsnr(t).item(), keep, make, deviation))

    @property
    def steps(self) -> int:
        """Network calls an image."""
        return len(self._steps)

    def forward(self, noise: Tensor, labels: Tensor | None = None, step_noise: Tensor | None = None) -> Tensor:
        x = self._start * noise.double()
        for number, (alpha, sigma, logsnr, keep, make, deviation) in enumerate(self._steps):
            a, b = torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)
            x_in = x if self._view.scale_input is None else x * self._view.scale_input(a, b).item()
            out = self.network(x_in.float(), torch.full_like(noise[:, 0, 0, 0], logsnr), labels)
            x0 = self._view.to_x0(out.double(), x, a, b)
            x0 = x0.clamp(-1, 1) if self.clip else x0
            x = keep * x + make * x0
            if step_noise is not None and deviation:
                x = x + deviation * step_noise[:, number].double()
        return x.float()


def example(sampler: Sampler, shape: tuple[int, int, int], num_classes: int) -> dict[str, Tensor]:
    """Inputs by name. Two images, not one: a graph takes a size of one for a constant."""
    inputs: dict[str, Tensor] = {"noise": torch.zeros(2, *shape)}
    if num_classes:
        inputs["labels"] = torch.zeros(2, dtype=torch.int64)
    if sampler.added > 0:
        inputs["step_noise"] = torch.zeros(2, sampler.added, *shape)
    return inputs


def export_torch(
    sampler: Sampler, shape: tuple[int, int, int], num_classes: int, path: Path, about: Mapping[str, str]
) -> None:
    """Write a `.pt2`: `torch.export.load(path).module()` is the sampler."""
    inputs = example(sampler, shape, num_classes)
    with _quiet():
        try:
            program = _program(sampler, inputs, torch.export.Dim("batch", min=1))
        except torch._dynamo.exc.UserError:
            program = _program(sampler, inputs, torch.export.Dim("batch", min=1, max=LARGEST_BATCH))
        with path.open("wb") as file:  # a name of any ending
            torch.export.save(program, file, extra_files={f"{name}.txt": text for name, text in about.items()})


def _program(sampler: Sampler, inputs: Mapping[str, Tensor], batch: Any) -> torch.export.ExportedProgram:
    """By name, since `labels` may be left out before `step_noise`."""
    named = dict(inputs)
    sizes = {name: {0: batch} for name in named}
    return torch.export.export(sampler, (named.pop("noise"),), kwargs=named, dynamic_shapes=sizes)


def export_onnx(
    sampler: Sampler, shape: tuple[int, int, int], num_classes: int, path: Path, about: Mapping[str, str]
) -> None:
    """Write the graph, with `about` as its metadata."""
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f"format: onnx needs {package}: pip install 'tract-ray[export]'") from None
    inputs = example(sampler, shape, num_classes)
    named = dict(inputs)
    batch = torch.export.Dim("batch", min=1)
    size = sum(p.numel() * p.element_size() for p in sampler.parameters())
    with _quiet():
        program = torch.onnx.export(
            sampler,
            (named.pop("noise"),),
            kwargs=named,
            input_names=list(inputs),
            output_names=["images"],
            dynamic_shapes={name: {0: batch} for name in inputs},
            dynamo=True,
            optimize=False,  # the runtime does its own when it loads the graph
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(about)
        program.save(path, external_data=size > _LARGEST_GRAPH)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters report on themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
