"""EDM's pickles: `edm-cifar10-32x32-*.pkl`, `edm-imagenet-64x64-cond-adm.pkl`, and networks trained like them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tract_ray.config import InputError, require
from tract_ray.diffusion.denoiser import SIGMA_DATA
from tract_ray.networks.importing.pickles import Record, read_pickle
from tract_ray.networks.importing.teacher import ImportedTeacher
from tract_ray.networks.presets import presets

# EDM's argument, our option, and EDM's default where that is the same in both of its classes (else None).
_SHARED = {
    "channel_mult_emb": ("embedding_multiplier", 4),
    "augment_dim": ("augment_dim", 0),
    "model_channels": ("channels", None),
    "channel_mult": ("multipliers", None),
    "num_blocks": ("blocks", None),
    "attn_resolutions": ("attention", None),
}
_SONG = {
    "embedding_type": ("embedding_type", "positional"),
    "encoder_type": ("encoder_type", "standard"),
    "channel_mult_noise": ("noise_multiplier", 1),
    "resample_filter": ("resample_filter", (1, 1)),
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "SongUNet": {"model_channels": 128, "channel_mult": (1, 2, 2, 2), "num_blocks": 4, "attn_resolutions": (16,)},
    "DhariwalUNet": {
        "model_channels": 192,
        "channel_mult": (1, 2, 3, 4),
        "num_blocks": 3,
        "attn_resolutions": (32, 16, 8),
    },
}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _options(class_name: str, arguments: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """Our options where they differ from the preset's. Dropout is left out: it shapes no weight."""
    names = {**_SHARED, **(_SONG if class_name == "SongUNet" else {})}
    defaults = _DEFAULTS[class_name]
    options = {
        ours: _plain(arguments.get(theirs, defaults.get(theirs, default))) for theirs, (ours, default) in names.items()
    }
    # What the preset leaves unsaid is EDM's default in our networks too.
    known = dict(names.values()) | dict(presets[preset].settings)
    return {name: value for name, value in options.items() if value != known[name]}


def import_edm(path: Path) -> ImportedTeacher:
    """The `ema` network of an EDM pickle. Raises `InputError` for another preconditioning or network class."""
    data = read_pickle(path)
    outer = data.get("ema") if isinstance(data, Mapping) else data
    if not isinstance(outer, Record) or "_modules" not in outer.state:
        raise InputError(f"teacher: {path.name} holds no network under 'ema'")
    require(
        outer.class_name == "EDMPrecond",
        "teacher",
        f"{path.name} holds a {outer.class_name}; only networks with EDM's preconditioning (EDMPrecond) are known",
    )
    require(
        outer.state.get("sigma_data", SIGMA_DATA) == SIGMA_DATA,
        "teacher",
        f"sigma_data must be {SIGMA_DATA}, {path.name} has {outer.state.get('sigma_data')}",
    )
    network = outer.state["_modules"]["model"]
    arguments = dict(network.state["_init_kwargs"])
    require(network.class_name in _DEFAULTS, "teacher", f"unknown network class {network.class_name!r} in {path.name}")
    require(
        arguments.get("decoder_type", "standard") == "standard", "teacher", "EDM's decoder_type 'skip' is not supported"
    )
    fourier = arguments.get("embedding_type") == "fourier"
    song = "edm_cifar10_ncsnpp" if fourier else "edm_cifar10_ddpmpp"
    preset = song if network.class_name == "SongUNet" else "edm_imagenet64_adm"
    size, channels = int(arguments["img_resolution"]), int(arguments["in_channels"])
    return ImportedTeacher(
        network=preset,
        options=_options(network.class_name, arguments, preset),
        shape=(channels, size, size),
        num_classes=int(arguments.get("label_dim", 0)),
        schedule="ve_karras",
        prediction="edm",
        state_dict={name: value.float().contiguous() for name, value in network.tensors()},
    )
