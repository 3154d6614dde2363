"""Where a U-Net's residual blocks stand: one layout for all of ours, whatever their blocks are made of.

That of DDPM (Ho et al. 2020) with blocks that resample: Salimans & Ho's, DDPM++, NCSN++ and ADM share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Place:
    """One residual block: its name within its resolution, the `size` (pixels) it returns, its widths (channels)."""

    name: str
    size: int
    channels_in: int
    channels: int
    resample: str = ""  # "down" or "up"
    attention: bool = False


class Layout(NamedTuple):
    """The blocks in the order in which they run.

    The first convolution and all of `down` hand their output across. Each place of `up` but those that resample takes
    the last one left, beside its input: its `channels_in` is the sum of both widths.
    """

    down: list[Place]
    middle: list[Place]
    up: list[Place]


def unet_layout(
    image_size: int,
    width_first: int,
    widths: Sequence[int],
    blocks: int,
    attention: Sequence[int],
    *,
    attend_last: bool = False,
) -> Layout:
    """The layout for images of `image_size`, after a first convolution to `width_first` channels.

    A level halves the image and has its entry in `widths`; on the way up it has one block more than `blocks`. At the
    resolutions `attention` every block attends, or with `attend_last` on the way up only the last one.
    """
    down: list[Place] = []
    up: list[Place] = []
    width, skips = width_first, [width_first]
    for level, own in enumerate(widths):
        size = image_size >> level
        if level:
            down.append(Place(name="down", size=size, channels_in=width, channels=width, resample="down"))
            skips.append(width)
        for index in range(blocks):
            attends = size in attention
            down.append(Place(name=f"block{index}", size=size, channels_in=width, channels=own, attention=attends))
            width = own
            skips.append(width)
    middle = [
        Place(
            name=f"in{index}", size=image_size >> len(widths) - 1, channels_in=width, channels=width, attention=attends
        )
        for index, attends in enumerate((True, False))
    ]
    for level, own in reversed(list(enumerate(widths))):
        size = image_size >> level
        if level < len(widths) - 1:
            up.append(Place(name="up", size=size, channels_in=width, channels=width, resample="up"))
        for index in range(blocks + 1):
            attends = size in attention and (index == blocks or not attend_last)
            joined = width + skips.pop()
            up.append(Place(name=f"block{index}", size=size, channels_in=joined, channels=own, attention=attends))
            width = own
    return Layout(down, middle, up)
