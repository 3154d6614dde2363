"""Inception-v3 as pytorch-fid ported it: what TRACT's numbers were measured with."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tract_ray.config import InputError, require
from tract_ray.evaluation.extractors.extractor import register
from tract_ray.evaluation.extractors.inception import InceptionFeatures, file_hash, find_file, missing

PYTORCH_FILE = "pt_inception-2015-12-05-6726825d.pth"
PYTORCH_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{PYTORCH_FILE}"
PYTORCH_VARIABLE = "TRACT_RAY_INCEPTION_PYTORCH"


@register
class InceptionLegacyPytorch(InceptionFeatures):
    """pytorch-fid's weights, resized by torch's bilinear filter without antialiasing: clean-fid's `legacy_pytorch`.

    The file's name ends in the head of its SHA-256, and is believed only where that is so.
    """

    kind = "inception_legacy_pytorch"

    @classmethod
    def weights(cls) -> Path:
        # Where `torch.hub` puts it, for pytorch-fid and clean-fid alike, is as good a place.
        places = (f"~/.cache/tract-ray/{PYTORCH_FILE}", f"~/.cache/torch/hub/checkpoints/{PYTORCH_FILE}")
        path = find_file(PYTORCH_VARIABLE, *places)
        if path is None:
            raise missing(PYTORCH_URL, PYTORCH_VARIABLE)
        head = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
        if head is None:
            raise InputError(f"features: {path} should be named like {PYTORCH_FILE}, with the head of its SHA-256")
        fits = file_hash(path).startswith(head[1])
        require(fits, "features", f"{path} is not the file that its name says; fetch {PYTORCH_URL} again")
        return path

    def load(self, path: Path) -> Any:
        network = fid_inception()
        try:
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (RuntimeError, pickle.UnpicklingError, TypeError, AttributeError) as error:
            raise InputError(f"features: {path} does not hold Inception's weights ({_first_line(error)})") from None
        network.fc = nn.Identity()
        return network.requires_grad_(False)

    def features(self, rgb: Tensor) -> Tensor:
        images = F.interpolate(rgb.to(self.device).float() / 255, (299, 299), mode="bilinear", align_corners=False)
        return self.network(2 * images - 1)  # type: ignore[no-any-return]


def fid_inception() -> Any:
    """Torchvision's Inception-v3 with the blocks that differ in TensorFlow's of 2015, which clean-fid keeps.

    Those average over what lies inside the image only, and the last one takes the maximum instead.
    """
    from cleanfid import inception_pytorch as fid
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    network.Mixed_5b = fid.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = fid.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = fid.FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = fid.FIDInceptionC(768, channels_7x7=128)
    network.Mixed_6c = fid.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6d = fid.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6e = fid.FIDInceptionC(768, channels_7x7=192)
    network.Mixed_7b = fid.FIDInceptionE_1(1280)
    network.Mixed_7c = fid.FIDInceptionE_2(2048)
    return network


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
