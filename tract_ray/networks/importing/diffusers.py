"""Folders of diffusers: a `UNet2DModel` on its own, or a pipeline around one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file

from tract_ray.config import InputError, choose, require
from tract_ray.networks.diffusers_unet import import_diffusers_library
from tract_ray.networks.importing.teacher import ImportedTeacher

WEIGHTS = "diffusion_pytorch_model.safetensors"
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
# Filled in from the data, so no option of the network.
_DATA = ("sample_size", "in_channels", "out_channels", "num_class_embeds")


def _unet_folder(folder: Path) -> Path:
    return folder / "unet" if (folder / "unet" / "config.json").exists() else folder


def weights_file(folder: Path) -> Path:
    """Where the weights of a diffusers folder are."""
    return _unet_folder(folder) / WEIGHTS


def is_diffusers(folder: Path) -> bool:
    return (_unet_folder(folder) / "config.json").exists()


def _json(path: Path) -> dict[str, Any]:
    """A configuration without its private entries; lists become tuples, as our options have them."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"teacher: {path} cannot be read: {error}") from error


def import_diffusers(folder: Path, image_size: int | None = None) -> ImportedTeacher:
    """See `import_teacher`. The scheduler's configuration lies in the folder or in `scheduler/` beside the U-Net."""
    unet_folder = _unet_folder(folder)
    config = _json(unet_folder / "config.json")
    choose("teacher", str(config.get("_class_name")), ["UNet2DModel"])
    places = [
        unet_folder / "scheduler_config.json",
        unet_folder.parent / "scheduler" / "scheduler_config.json",
    ]
    scheduler_file = next((place for place in places if place.exists()), None)
    if scheduler_file is None:
        raise InputError(f"teacher: {folder} has no scheduler_config.json, so its noise levels are unknown")
    scheduler = _json(scheduler_file)
    if not (unet_folder / WEIGHTS).exists():
        raise InputError(f"teacher: {unet_folder} has no {WEIGHTS} (weights in pickles are not read)")
    try:
        weights = load_file(unet_folder / WEIGHTS)
    except SafetensorError as error:
        raise InputError(f"teacher: {unet_folder / WEIGHTS} cannot be read: {error}") from error
    size = config.get("sample_size") or image_size
    require(size is not None, "teacher", f"{folder} does not say its sample_size; give image_size")
    height, width = size if isinstance(size, tuple) else (size, size)
    kind = str(scheduler.get("_class_name", "DDPMScheduler"))
    require(
        "Flow" not in kind and not kind.startswith(("EDM", "Karras")),
        "teacher",
        f"{folder} was trained for {kind}; DDPM's, DDIM's and score-SDE's schedulers (VP with betas, VE) are known",
    )
    prediction = scheduler.get("prediction_type", "epsilon")
    choose("teacher prediction_type", prediction, PREDICTIONS)
    keep = {k: v for k, v in config.items() if not k.startswith("_") and k not in _DATA}
    noise = {k: v for k, v in scheduler.items() if not k.startswith("_") and _sets_noise(k)}
    return ImportedTeacher(
        network="diffusers_unet",
        options={"unet": keep, "scheduler": noise},
        shape=(int(config["in_channels"]), int(height), int(width)),
        num_classes=int(cast(int, config.get("num_class_embeds") or 0)),
        schedule="ve_karras" if "sigma_max" in noise else "vp_cosine",
        prediction=PREDICTIONS[prediction],
        state_dict={f"model.{name}": value.float() for name, value in weights.items()},
    )


def _sets_noise(name: str) -> bool:
    vp = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
    return name in (*vp, "sigma_min", "sigma_max")


def download(name: str) -> Path:
    """The folder of a repository `owner/name` of the Hugging Face hub: its safetensors and JSON alone."""
    hub = import_diffusers_library("teacher: a Hugging Face name")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the hub's, httpx's and the system's own
        reason = type(error).__name__
        raise InputError(
            f"teacher: no file or folder {name}, and the Hugging Face hub did not hand it out ({reason}, diffusers "
            f"{hub.__version__}); download it on a machine that is online and name its folder"
        ) from None
