"""The Fréchet distance against closed forms and against clean-fid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cleanfid.fid import frechet_distance as cleanfid_distance
from numpy.typing import NDArray

from tract_ray.config import InputError
from tract_ray.evaluation import Statistics, frechet_distance, frechet_distance_numpy

Distance = Callable[[Statistics, Statistics], float]
DISTANCES = [frechet_distance, frechet_distance_numpy]


def rotation(size: int, seed: int) -> NDArray[np.float64]:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("size", [2, 16, 64])
def test_commuting_covariances(distance: Distance, size: int) -> None:
    """With common eigenvectors: `|m_a - m_b|^2 + sum (sqrt(a_i) - sqrt(b_i))^2`."""
    rng, axes = np.random.default_rng(size), rotation(size, seed=1)
    a, b = rng.uniform(0.1, 4, (2, size))
    mean_a, mean_b = rng.normal(size=(2, size))
    expected = np.sum((mean_a - mean_b) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    found = distance(Statistics(mean_a, (axes * a) @ axes.T, 100), Statistics(mean_b, (axes * b) @ axes.T, 100))
    assert found == pytest.approx(expected, rel=1e-9)


def random_statistics(seed: int, size: int, count: int) -> Statistics:
    rng = np.random.default_rng(seed)
    return Statistics.of(rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + rng.normal(size=size))


@pytest.mark.parametrize("size", [3, 64])
def test_the_three_computations_agree(size: int) -> None:
    a, b = (random_statistics(seed, size, 500) for seed in (0, 1))
    reference = float(cleanfid_distance(a.mean, a.cov, b.mean, b.cov))
    assert frechet_distance(a, b) == reference
    assert frechet_distance_numpy(a, b) == pytest.approx(reference, rel=1e-8)
    assert frechet_distance_numpy(b, a) == pytest.approx(reference, rel=1e-8)


@pytest.mark.parametrize("distance", DISTANCES)
def test_singular_covariances(distance: Distance) -> None:
    """Fewer samples than features: closed form of a shift by 3 in one direction."""
    features = np.random.default_rng(0).normal(size=(10, 32))
    a, b = Statistics.of(features), Statistics.of(features + 3 * np.eye(32)[0])
    assert distance(a, b) == pytest.approx(9, rel=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_set_is_at_no_distance_from_itself(distance: Distance) -> None:
    a = random_statistics(2, 8, 200)
    assert distance(a, a) == pytest.approx(0, abs=1e-6)


def test_without_clean_fid_the_numpy_computation_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (random_statistics(seed, 4, 50) for seed in (0, 1))
    monkeypatch.setattr("tract_ray.evaluation.metrics.frechet.importlib.util.find_spec", lambda name: None)
    assert frechet_distance(a, b) == frechet_distance_numpy(a, b)


def test_statistics_are_the_unbiased_ones() -> None:
    found = Statistics.of(np.array([[0, 0], [2, 0], [1, 3]], dtype=np.float32))
    assert found.mean.tolist() == [1, 1]
    assert np.allclose(found.cov, [[1, 0], [0, 3]])
    assert (found.count, found.mean.dtype, found.cov.dtype) == (3, np.float64, np.float64)


@pytest.mark.parametrize("shape", [(1, 4), (4,), (0, 4)])
def test_too_few_features(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"^features: need \(N >= 2, D\)"):
        Statistics.of(np.zeros(shape))
