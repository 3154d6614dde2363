"""In which precision a device can train."""

from __future__ import annotations

import torch

from tract_ray.config import choose, require
from tract_ray.diffusion import PRECISIONS


def has_bf16(device: torch.device) -> bool:
    """Whether products of bfloat16 have instructions of their own; without them they are many times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type != "cpu" or bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse bf16 on a device that has none."""
    if precision == "bf16":
        what = "processor" if device.type == "cpu" else "GPU"
        require(has_bf16(device), "precision", f"this {what} has no bf16 arithmetic, train in float32")


def resolve_precision(precision: str, device: torch.device) -> str:
    """`precision` itself where `device` has it, or what "auto" is there: bf16 on GPUs that have it, else float32."""
    choose("precision", precision, (*PRECISIONS, "auto"))
    if precision != "auto":
        check_precision(precision, device)
        return precision
    return "bf16" if device.type == "cuda" and has_bf16(device) else "float32"
