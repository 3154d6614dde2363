"""A budget: training images or device time that all trials of a sweep may spend together."""

from __future__ import annotations

from dataclasses import dataclass

from tract_ray.config import InputError, parse_count, require

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


@dataclass(frozen=True)
class Budget:
    """Exactly one of the two: training `images`, or device `seconds` (the time of all workers, evaluation included)."""

    images: int | None = None
    seconds: float | None = None

    def describe(self) -> str:
        """For people."""
        if self.images is not None:
            return f"{self.images:,} training images"
        return f"{(self.seconds or 0) / 3600:g} device hours"

    def allows(self, images: int, seconds: float, more: int) -> bool:
        """Whether a trial of `more` images may begin after `images` spent or promised and `seconds` spent."""
        if self.images is not None:
            return images + more <= self.images
        return self.seconds is None or seconds < self.seconds

    def exhausted(self, seconds: float) -> bool:
        """Whether running trials must end now. A budget of images never needs that: they are promised beforehand."""
        return self.seconds is not None and seconds >= self.seconds


def parse_budget(text: str, trial: int) -> Budget:
    """`640k` or `3M` images, `1.5h`, `30m` or `90s` of device time; less than one `trial` (images) is refused."""
    if text[-1:] in UNITS and text.isascii() and text[:-1].replace(".", "", 1).isdigit():
        seconds = float(text[:-1]) * UNITS[text[-1]]
        require(seconds > 0, "budget", f"must be positive, got {text}")
        return Budget(seconds=seconds)
    try:
        images = parse_count("budget", text)
    except InputError:
        raise InputError(f"budget: {text!r} is neither images (640k, 3M) nor device time (1.5h, 30m, 90s)") from None
    require(images >= trial, "budget", f"{images:,} images are less than one trial's {trial:,}")
    return Budget(images=images)
