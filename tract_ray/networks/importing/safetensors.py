"""Our own files: weights in safetensors, and in the header what `export_network` knew about the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open

from tract_ray.config import InputError, choose
from tract_ray.diffusion import samplers
from tract_ray.networks.importing.teacher import ImportedTeacher

HEADER = "tract_ray"


def import_safetensors(path: Path) -> ImportedTeacher:
    """See `import_teacher`. A file whose export was not told the network's name holds weights only: an `InputError`."""
    try:
        with cast(Any, safe_open(path, framework="pt")) as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise InputError(f"teacher: {path} cannot be read: {error}") from error
    if not header.get("network"):
        raise InputError(f"teacher: {path} does not say which network its weights belong to")
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in header["options"].items()}
    channels, height, width = header["shape"]
    sampler = header.get("sampler")
    return ImportedTeacher(
        network=header["network"],
        options=plain,
        shape=(channels, height, width),
        num_classes=header["num_classes"],
        schedule=header["schedule"],
        prediction=header["prediction"],
        state_dict=weights,
        sampler=choose("teacher sampler", sampler, samplers) if sampler else None,
        times=tuple(header["times"]) if header.get("times") else None,
    )
