"""What a data set is, whatever it is called and wherever it lies: a hash of its pixels, their order and labels."""

from __future__ import annotations

import hashlib
import json
from typing import cast

from torch import Tensor

_PART = 1 << 16  # images hashed at a time: data larger than memory passes through a few megabytes


def content_hash(images: Tensor) -> str:
    """SHA-256 of uint8 `images` `(N, C, H, W)`; computed once for a tensor that nothing writes to."""
    known = getattr(images, "_content", None)
    if known is None or known[0] != images._version:
        digest = hashlib.sha256()
        step = max(1, _PART * 64 // max(1, images[:1].numel()))
        for part in images.split(step):
            digest.update(part.cpu().contiguous().numpy().tobytes())
        known = remember_content(images, digest.hexdigest())
    return known[1]


def remember_content(images: Tensor, content: str) -> tuple[int, str]:
    """Spare the next `content_hash` its work: `content` is what it would find."""
    known = (images._version, content)
    cast(object, images).__dict__["_content"] = known
    return known


def fingerprint(images: Tensor, labels: Tensor, num_classes: int, flip: bool) -> str:
    """16 hexadecimal digits of all that training and scores see of a data set, and of nothing else."""
    about = [list(images.shape), num_classes, flip, content_hash(images)]
    digest = hashlib.sha256(json.dumps(about).encode())
    digest.update(labels.cpu().long().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
