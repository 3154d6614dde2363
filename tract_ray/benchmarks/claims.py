"""What the benchmarks claim, and whether it holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A ratio of two measured distances and its bound; without one it is shown, not claimed."""

    text: str
    ratio: float
    bound: float | None = None
    at_most: bool = True

    @property
    def holds(self) -> bool:
        """Whether the ratio is on its side of the bound."""
        if self.bound is None:
            return True
        return self.ratio <= self.bound if self.at_most else self.ratio >= self.bound
