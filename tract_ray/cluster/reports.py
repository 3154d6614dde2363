"""What a trial tells Tune. It imports nothing else: a simulated trial must start quickly."""

from __future__ import annotations

from typing import Any

from ray import tune


def tell_tune(scores: dict[str, Any]) -> None:
    """Report the scores of the trial that this process runs."""
    tune.report(scores)
