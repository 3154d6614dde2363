"""Every registered metric keeps the protocol."""

from __future__ import annotations

import numpy as np
import pytest

from tract_ray.evaluation.metrics import Metric, metrics, register


@pytest.mark.parametrize("kind", metrics)
def test_the_contract(kind: str) -> None:
    """Samples of the data's own distribution are nearest, and the further they lie the larger the distance."""
    metric = metrics[kind]()
    random = np.random.default_rng(0)
    reference = metric.reference(random.normal(size=(400, 6)))
    samples = random.normal(size=(300, 6))
    distances = [metric.distance(samples + shift, reference) for shift in (0.0, 1.0, 3.0)]
    assert np.isfinite(distances).all()
    assert distances[0] < distances[1] < distances[2]
    assert isinstance(distances[0], float)
    assert metric.distance(samples, reference) == distances[0]
    assert metric.distance(samples[::-1], reference) == pytest.approx(distances[0], rel=1e-6)
    assert metric.computation()


def test_an_unfinished_metric_is_refused() -> None:
    class Half(Metric):
        kind = "half"

    with pytest.raises(TypeError, match="Half leaves parts of the protocol out"):
        register(Half)
    assert "half" not in metrics
