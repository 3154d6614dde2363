"""Where the blocks of a U-Net stand, against a layout that was written out by hand."""

from __future__ import annotations

import pytest

from tract_ray.networks.layout import Layout, unet_layout

# Name, size, widths in and out, attention: 16x16 images, a first convolution to 10, widths 20 and 30, two blocks.
DOWN = ["block0 16 10 20 -", "block1 16 20 20 -", "down 8 20 20 -", "block0 8 20 30 a", "block1 8 30 30 a"]
MIDDLE = ["in0 8 30 30 a", "in1 8 30 30 -"]
UP = ["block0 8 60 30 a", "block1 8 60 30 a", "block2 8 50 30 a"]
UP += ["up 16 30 30 -", "block0 16 50 20 -", "block1 16 40 20 -", "block2 16 30 20 -"]


def written(part: Layout) -> list[list[str]]:
    return [
        [f"{at.name} {at.size} {at.channels_in} {at.channels} {'a' if at.attention else '-'}" for at in places]
        for places in part
    ]


@pytest.mark.parametrize("attend_last", [False, True])
def test_the_layout(attend_last: bool) -> None:
    layout = unet_layout(16, 10, (20, 30), 2, (8,), attend_last=attend_last)
    last = [line.replace("a", "-") if line.startswith(("block0 8", "block1 8")) else line for line in UP]
    assert written(layout) == [DOWN, MIDDLE, last if attend_last else UP]
    assert [at.resample for places in layout for at in places if at.resample] == ["down", "up"]
    assert all(at.resample == at.name for places in layout for at in places if at.resample)
