"""The recipes, scaled down, against the authors' update rules of `authors.py`: to 1e-5 of the distance moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import authors
import pytest

from tract_ray.benchmarks.scripted import Outcome, Script, distance, networks, scripts, train_scripted, weights_of

B = 3


def agree(recipe: str, found: Outcome, expected: Outcome) -> None:
    begun = weights_of(networks(recipe)[1])
    moved = distance(expected.weights["student"], begun)
    assert moved > 1e-3
    for name, weights in expected.weights.items():
        assert distance(found.weights[name], weights) < 1e-5 * moved, name
    assert found.norms == pytest.approx(expected.norms, rel=1e-5)


SCHEDULE = (64, 8, 1)


@pytest.fixture(scope="module")
def script() -> list[Script]:
    return scripts(40, B)


@pytest.fixture(scope="module")
def few(script: list[Script]) -> Outcome:
    """TRACT in eight steps."""
    return authors.tract(*networks("tract-cifar10"), script[:8], SCHEDULE, 2e-4)


def test_tract(script: list[Script], tmp_path: Path) -> None:
    expected = authors.tract(*networks("tract-cifar10"), script, SCHEDULE, 2e-4)
    found = train_scripted("tract-cifar10", script, tmp_path, time_schedule=SCHEDULE)
    agree("tract-cifar10", found, expected)
    clipped = [norm > 1 for norm in found.norms]
    assert clipped == [norm > 1 for norm in expected.norms]
    assert sum(clipped) > 20  # on the scale of the sum


@pytest.mark.parametrize(
    "change",
    [
        {"loss_reduction": "mean"},
        {"keep_optimizer": False},
        {"keep_averages": False},
        {"student_init": "teacher"},
        {"clip_x0": "none"},
        {"boundary": "exact"},
        {"adam_eps": 1e-4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_choice_is_another_training(
    change: dict[str, Any], few: Outcome, script: list[Script], tmp_path: Path
) -> None:
    found = train_scripted("tract-cifar10", script[:8], tmp_path, time_schedule=SCHEDULE, **change)
    with pytest.raises(AssertionError):
        agree("tract-cifar10", found, few)


def test_tract_edm(script: list[Script], tmp_path: Path) -> None:
    expected = authors.tract_edm(*networks("tract-edm-cifar10"), script, 40, 1e-3)
    agree("tract-edm-cifar10", train_scripted("tract-edm-cifar10", script, tmp_path), expected)


def test_three_halvings(script: list[Script], tmp_path: Path) -> None:
    expected = authors.progressive(*networks("btd-cifar10"), script, {4: 8, 2: 16, 1: 16}, 5e-5)
    changes = {"samples": None, "start_steps": 8, "updates_per_phase": (8, 16, 16)}
    found = train_scripted("btd-cifar10", script, tmp_path, **changes)
    agree("btd-cifar10", found, expected)


def test_moment_matching(script: list[Script], tmp_path: Path) -> None:
    expected = authors.moment_matching(*networks("moment-matching-imagenet64"), script[:20], 8, 1e-4, warmup=2)
    found = train_scripted("moment-matching-imagenet64", script[:20], tmp_path)
    agree("moment-matching-imagenet64", found, expected)
