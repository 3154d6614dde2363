"""Public teachers in our networks: `import_teacher(path)`."""

from __future__ import annotations

import re
from pathlib import Path

from tract_ray.config import InputError, require
from tract_ray.networks.importing.diffusers import download, import_diffusers, is_diffusers
from tract_ray.networks.importing.edm import import_edm
from tract_ray.networks.importing.flax import import_flax
from tract_ray.networks.importing.safetensors import import_safetensors
from tract_ray.networks.importing.teacher import ImportedTeacher

__all__ = ["ImportedTeacher", "import_teacher", "locate"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/(?!.*\.(pkl|bin|safetensors)$)[A-Za-z0-9][\w.-]*")


def import_teacher(
    source: str | Path, *, image_size: int | None = None, prediction: str | None = None
) -> ImportedTeacher:
    """A teacher from a file or folder that is already on this machine; what it is shows from its content.

    - an EDM pickle (read without running the code it carries);
    - a flax checkpoint of progressive distillation's authors, for which `image_size` and `prediction` ("x0", "eps",
      "v" or "both") are needed where no preset has the same architecture;
    - a folder of a diffusers `UNet2DModel`, or of a pipeline around one (DDPM, v-prediction, score-SDE VE), or its name
      on the Hugging Face hub, which must be reachable then;
    - a safetensors file that `export_network` wrote.

    Raises `InputError` for anything else, and names any weight that is missing, left over or of another shape.
    """
    path = locate(source)
    try:
        return _import(path, image_size, prediction)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OSError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"teacher: {path} is damaged or of an unknown kind ({reason})") from error


def locate(source: str | Path) -> Path:
    """Where the source lies; `owner/name` that is no path is fetched from the Hugging Face hub."""
    path = Path(source).expanduser()
    if path.exists():
        require(path.is_dir() or path.is_file(), "teacher", f"{source} is neither a file nor a folder")
        return path
    if _HUB_NAME.fullmatch(str(source)):
        return download(str(source))
    hint = "; download it first" if "://" in str(source) else ""
    raise InputError(f"teacher: no file or folder {source}{hint}")


def _import(path: Path, image_size: int | None, prediction: str | None) -> ImportedTeacher:
    if path.is_dir():
        if not is_diffusers(path):
            raise InputError(f"teacher: {path} has no config.json of a diffusers UNet2DModel")
        return import_diffusers(path, image_size).checked()
    with path.open("rb") as file:
        head = file.read(2)
    if head[:1] == b"\x80" and head[1:] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return import_edm(path).checked()
    if path.suffix == ".safetensors":
        return import_safetensors(path).checked()
    if head[:1] in (b"\xde", b"\xdf") or b"\x81" <= head[:1] <= b"\x8f":  # a msgpack map
        return import_flax(path, image_size, prediction).checked()
    raise InputError(f"teacher: {path} is neither an EDM pickle, nor a flax checkpoint, nor a safetensors file of ours")
