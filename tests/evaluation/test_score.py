"""Scores: fixed noise, the noise floor, the distance of samplers whose distance is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tract_ray.data import load_dataset
from tract_ray.data.dataset import to_float
from tract_ray.evaluation import Evaluator, Statistics, fixed_noise, frechet_distance, image_grid, save_grid


@pytest.mark.parametrize("cut", [1, 100, 500, 501, 1200])
def test_fixed_noise_does_not_depend_on_the_chunks(cut: int) -> None:
    whole = fixed_noise(0, 0, 1300, (1, 2, 2))
    parts = [fixed_noise(0, first, min(cut, 1300 - first), (1, 2, 2)) for first in range(0, 1300, cut)]
    assert torch.equal(torch.cat(parts), whole)


def test_fixed_noise_is_standard_normal_and_follows_the_seed() -> None:
    noise = fixed_noise(0, 0, 4000, (1, 4, 4))
    assert noise.mean().item() == pytest.approx(0, abs=5 / 253)  # 5 standard errors of 64,000 numbers
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(noise, fixed_noise(1, 0, 4000, (1, 4, 4)))
    assert len(noise.flatten().unique()) > 60_000  # no chunk repeats another


def test_fixed_noise_ignores_the_process() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fixed_noise(7, 10, 20, (3, 2, 2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(fixed_noise(7, 10, 20, (3, 2, 2)), first)


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    """The real recipe on the real digits; a few seconds."""
    return Evaluator(load_dataset("digits"), "classifier", tmp_path_factory.mktemp("cache"), conditional=True)


def test_the_classifier_knows_the_digits(evaluator: Evaluator) -> None:
    network, data = evaluator.extractor.network, evaluator.dataset  # type: ignore[attr-defined]
    assert (network(data.images).argmax(1) == data.labels).float().mean() > 0.99


def test_features_are_scaled_to_a_total_variance_of_100(evaluator: Evaluator) -> None:
    assert evaluator.real.shape == (1797, 64)
    assert evaluator.real.var(axis=0, ddof=1).sum() == pytest.approx(100)
    assert evaluator.metric == "fid_digits"


def test_the_noise_floor_is_positive_and_small(evaluator: Evaluator) -> None:
    assert 0.2 < evaluator.noise_floor() < 2
    assert evaluator.noise_floor() == evaluator.noise_floor()


def test_the_data_itself_scores_nothing(evaluator: Evaluator) -> None:
    """A sampler that hands out the data set in order, through the noise's own interface."""
    rows = iter(range(0, 1797, 500))

    def real(noise: Tensor, labels: Tensor | None) -> Tensor:
        first = next(rows)
        return to_float(evaluator.dataset.images[first : first + len(noise)])

    assert evaluator.distance(real, 1797) == pytest.approx(0, abs=1e-3)


def test_worse_images_score_higher(evaluator: Evaluator) -> None:
    images = to_float(evaluator.dataset.images)
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))

    def damaged(level: float) -> float:
        rows = iter(order.split(500))
        return evaluator.distance(lambda noise, labels: images[next(rows)[: len(noise)]] + level * noise, 1500)

    scores = [damaged(level) for level in (0.0, 0.2, 0.5)]
    assert scores[0] < 1 < 2 * scores[0] + 1 < scores[1] < scores[2]


def test_shares_of_an_evaluation_add_up(evaluator: Evaluator) -> None:
    """Workers that score 0 … 699 and 700 … 1199 see the images that one worker would have seen."""

    def sampler(noise: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        return noise.clamp(-1, 1) * (labels[:, None, None, None] / 9)

    whole = evaluator.features(sampler, 0, 1200)
    parts = np.concatenate([evaluator.features(sampler, 0, 700), evaluator.features(sampler, 700, 500)])
    assert np.abs(whole - parts).max() < 1e-5
    assert evaluator.distance(sampler, 1200) == frechet_distance(Statistics.of(whole), evaluator.reference)


def test_an_empty_share(evaluator: Evaluator) -> None:
    """More workers than samples."""
    assert evaluator.features(lambda noise, labels: noise, 0, 0).shape == (0, 64)


def test_labels_take_turns(evaluator: Evaluator) -> None:
    labels = evaluator.labels(8, 5)
    assert labels is not None
    assert labels.tolist() == [8, 9, 0, 1, 2]


def test_what_is_named_with_a_distance(evaluator: Evaluator) -> None:
    described = evaluator.describe(4000)
    assert described["metric"] == "fid_digits"
    assert described["computation"] == "clean-fid"
    assert (described["samples"], described["seed"]) == (4000, 0)
    assert described["extractor"] == evaluator.extractor.fingerprint


def test_save_grid(tmp_path: Path) -> None:
    """10 images of 8x8 in rows of 4, enlarged 8 times, 2 pixels between and around."""
    images = torch.linspace(-1, 1, 10)[:, None, None, None].expand(-1, 1, 8, 8)
    path = save_grid(images, tmp_path / "new" / "grid.png", columns=4)
    with Image.open(path) as file:
        assert file.format == "PNG"
        assert file.size == (4 * 66 + 2, 3 * 66 + 2)
        levels = [file.getpixel((2 + 66 * (k % 4) + 32, 2 + 66 * (k // 4) + 32)) for k in range(10)]
        assert file.getpixel((0, 0)) == (64, 64, 64)
    assert levels == [(v, v, v) for v in (round(255 * k / 9) for k in range(10))]


def test_a_grid_of_colour_images_keeps_them() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8))
    grid = np.asarray(image_grid(images))
    assert grid.shape == (68, 2 * 66 + 2, 3)
    assert np.array_equal(grid[2:66, 68:132], images[1].permute(1, 2, 0).numpy())
