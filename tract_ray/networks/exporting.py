"""Students for other programs: weights, the whole sampler as one graph, or a folder that diffusers samples from."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tract_ray.config import choose, require, to_dict
from tract_ray.diffusion import Denoiser, samplers
from tract_ray.networks.exporting_diffusers import export_diffusers, inexpressible
from tract_ray.networks.exporting_graph import Sampler, export_onnx, export_torch
from tract_ray.networks.exporting_pipeline import export_pipeline
from tract_ray.networks.importing.safetensors import HEADER
from tract_ray.networks.layers import ClassEmbedding

FORMATS = ("safetensors", "onnx", "torch_export", "diffusers")


def export_network(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    out: str | Path,
    format: str,
    *,
    steps: int = 1,
    times: Tensor | None = None,
    sampler: str | None = None,
    clip: bool = True,
    num_classes: int = 0,
    network: str = "",
    options: Mapping[str, Any] | None = None,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write a student for images `(C, H, W)` and return where it lies; the caller's network is left as it is.

    - `safetensors`: the weights in the file `out`. With `network` and `options` (as in `build_network`) in its header,
      `import_teacher` reads it back, as a student if `times` are given.
    - `onnx` and `torch_export`: the whole sampler of `steps` steps as one graph in the file `out`: standard normal
      `noise` `(B, C, H, W)`, and `labels` `(B,)` int64 of a conditional network, to `images`, which are the sampler's.
      Any batch size. An "ancestral" sampler of several steps also takes `step_noise` `(B, steps - 1, C, H, W)`.
    - `diffusers`: a folder `out` with a `UNet2DModel` and a DDIM scheduler of `steps` steps, where diffusers can say
      the student so; else with a pipeline of ours around its graph.

    `times` and `clip` are `sample_ddim`'s, which is the `sampler` that None stands for; "euler" and "heun" do not clip,
    and a graph takes a single "heun" step only. `about` goes with the file as its metadata.
    """
    choose("format", format, FORMATS)
    kind = choose("sampler", sampler or "ddim", samplers)
    path = Path(out)
    require(steps >= 1, "steps", f"must be at least 1, got {steps}")
    nodes = _own_nodes(denoiser, kind, steps) if times is None else times.double().cpu().clone()
    require(len(nodes) == steps + 1, "times", f"{steps} steps have {steps + 1} times, got {len(nodes)}")
    first_order = format == "safetensors" or samplers[kind].nfe(steps) == steps
    require(first_order, "sampler", f"{format} takes first-order steps, not {kind}'s; name another sampler")
    clip = clip and kind not in ("euler", "heun")
    classes = classes_of(denoiser.module)
    require(classes == num_classes, "num_classes", f"the network has {classes} classes, not {num_classes}")
    student = denoiser.view_of(copy.deepcopy(denoiser.module).cpu().float().eval())
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = dict(about or {})
    if format == "safetensors":
        header = {
            "network": network,
            "options": to_dict(options or {}),
            "shape": shape,
            "num_classes": num_classes,
            "schedule": denoiser.schedule.name,
            "prediction": denoiser.prediction,
            "sampler": sampler,
            "times": None if times is None else nodes.tolist(),
            "about": metadata,
        }
        weights = {name: value.contiguous() for name, value in student.module.state_dict().items()}
        save_file(weights, path, metadata={HEADER: json.dumps(header, sort_keys=True)})
    elif format == "diffusers" and not inexpressible(student, kind):
        export_diffusers(student, shape, path, nodes, clip)
    else:
        graph = Sampler(student, nodes, clip, ancestral=kind == "ancestral").eval()
        write = {"onnx": export_onnx, "torch_export": export_torch, "diffusers": export_pipeline}[format]
        write(graph, shape, num_classes, path, metadata)
    return path


def _own_nodes(denoiser: Denoiser, sampler: str, steps: int) -> Tensor:
    """The nodes that the sampler takes by itself, `(steps + 1,)`."""
    if sampler == "ancestral":
        return denoiser.schedule.sampling_time(torch.arange(steps + 1, dtype=torch.float64) / steps)
    return denoiser.schedule.nodes(steps)


def classes_of(network: nn.Module) -> int:
    """The number of classes that a network of ours is conditioned on; 0 for none."""
    embeddings = [layer.num_classes for layer in network.modules() if isinstance(layer, ClassEmbedding)]
    return int(embeddings[0] if embeddings else getattr(network, "num_classes", 0))
