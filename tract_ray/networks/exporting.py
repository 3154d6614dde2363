"""Students for other programs: weights, a sampler in one ONNX file, or a folder that diffusers samples from."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tract_ray.config import InputError, choose, require, to_dict
from tract_ray.diffusion import Denoiser, predictions, samplers
from tract_ray.networks.exporting_diffusers import export_diffusers
from tract_ray.networks.importing.safetensors import HEADER
from tract_ray.networks.layers import ClassEmbedding

FORMATS = ("safetensors", "onnx", "diffusers")
# Beyond this the weights lie in a file of their own beside the graph: protobuf ends at 2 GiB.
_LARGEST_GRAPH = 1_500_000_000


def export_network(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    out: str | Path,
    format: str,
    *,
    steps: int = 1,
    times: Tensor | None = None,
    sampler: str = "ddim",
    clip: bool = True,
    num_classes: int = 0,
    network: str = "",
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Write a student for images `(C, H, W)` and return where it lies; the caller's network is left as it is.

    - `safetensors`: the weights in the file `out`. With `network` and `options` (as in `build_network`) in its header,
      `import_teacher` reads it back, as a student if `times` are given.
    - `onnx`: the whole sampler of `steps` DDIM steps in the file `out`: standard normal `noise` `(B, C, H, W)`, and
      `labels` `(B,)` int64 of a conditional network, to `images`, which are `sample_ddim`'s. Any batch size.
    - `diffusers`: a folder `out` with a `UNet2DModel` and a DDIM scheduler of `steps` steps. Raises `InputError` for
      networks that `UNet2DModel` cannot express.

    `times` and `clip` are `sample_ddim`'s. Of an "ancestral" student, whose steps but the last add noise, `onnx` and
    `diffusers` take a single step only.
    """
    choose("format", format, FORMATS)
    choose("sampler", sampler, samplers)
    path = Path(out)
    require(steps >= 1, "steps", f"must be at least 1, got {steps}")
    nodes = denoiser.schedule.nodes(steps) if times is None else times.double().cpu().clone()
    require(len(nodes) == steps + 1, "times", f"{steps} steps have {steps + 1} times, got {len(nodes)}")
    if sampler == "ancestral" and format != "safetensors":
        require(steps == 1, "format", f"{format} takes DDIM steps, this student's {steps} add noise; use safetensors")
        nodes[0] = 0  # its last step ends at x0 itself
    classes = classes_of(denoiser.module)
    require(classes == num_classes, "num_classes", f"the network has {classes} classes, not {num_classes}")
    student = denoiser.view_of(copy.deepcopy(denoiser.module).cpu().float().eval())
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "diffusers":
        export_diffusers(student, shape, path, nodes, clip)
    elif format == "onnx":
        _export_onnx(student, shape, path, nodes, clip, num_classes)
    else:
        header = {
            "network": network,
            "options": to_dict(options or {}),
            "shape": shape,
            "num_classes": num_classes,
            "schedule": denoiser.schedule.name,
            "prediction": denoiser.prediction,
            "sampler": sampler,
            "times": None if times is None else nodes.tolist(),
        }
        weights = {name: value.contiguous() for name, value in student.module.state_dict().items()}
        save_file(weights, path, metadata={HEADER: json.dumps(header, sort_keys=True)})
    return path


def classes_of(network: nn.Module) -> int:
    """The number of classes that a network of ours is conditioned on; 0 for none."""
    embeddings = [layer.num_classes for layer in network.modules() if isinstance(layer, ClassEmbedding)]
    return int(embeddings[0] if embeddings else getattr(network, "num_classes", 0))


class Sampler(nn.Module):
    """`sample_ddim` with its schedule turned into constants: `(noise, labels)` -> images, float32.

    The state between steps is float64 as in `sample_ddim`; the networks run in their own precision.
    """

    def __init__(self, denoiser: Denoiser, nodes: Tensor, clip: bool) -> None:
        super().__init__()
        self.network = denoiser.module
        self.clip = clip
        self._view = predictions[denoiser.prediction]
        schedule = denoiser.schedule
        self._start = schedule.sigma(nodes[-1]).item()
        self._steps = []
        for t, s in zip(nodes.flip(0)[:-1], nodes.flip(0)[1:], strict=True):
            numbers = (f(t) for f in (schedule.alpha, schedule.sigma, schedule.logsnr))
            self._steps.append((*(n.item() for n in numbers), schedule.alpha(s).item(), schedule.sigma(s).item()))

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self._start * noise.double()
        for alpha, sigma, logsnr, alpha_next, sigma_next in self._steps:
            a, b = torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)
            x_in = x if self._view.scale_input is None else x * self._view.scale_input(a, b).item()
            out = self.network(x_in.float(), torch.full_like(noise[:, 0, 0, 0], logsnr), labels)
            x0 = self._view.to_x0(out.double(), x, a, b)
            x0 = x0.clamp(-1, 1) if self.clip else x0
            x = alpha_next * x0 + (sigma_next / sigma) * (x - alpha * x0)
        return x.float()


def _export_onnx(
    denoiser: Denoiser, shape: tuple[int, int, int], path: Path, nodes: Tensor, clip: bool, num_classes: int
) -> None:
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f"format: onnx needs {package}: pip install 'tract-ray[export]'") from None
    sampler = Sampler(denoiser, nodes, clip).eval()
    # Two images, not one: the exporter takes a size of one for a constant.
    inputs: dict[str, Tensor] = {"noise": torch.zeros(2, *shape)}
    if num_classes:
        inputs["labels"] = torch.zeros(2, dtype=torch.int64)
    batch = torch.export.Dim("batch", min=1)
    size = sum(p.numel() * p.element_size() for p in sampler.parameters())
    with torch.inference_mode(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter reports on itself
        torch.onnx.export(
            sampler,
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=["images"],
            dynamic_shapes={name: {0: batch} for name in inputs},
            external_data=size > _LARGEST_GRAPH,
            dynamo=True,
            optimize=False,  # the runtime does its own when it loads the graph
            verbose=False,
        )
