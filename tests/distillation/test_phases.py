"""Time schedules: what is refused, and how a run is divided."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tract_ray.config import InputError
from tract_ray.distillation import ProgressiveConfig, TractConfig, lay_out_phases, parse_time_schedule


def test_a_schedule_reads_as_text_or_numbers() -> None:
    assert parse_time_schedule("1024,32,1") == parse_time_schedule([1024, 32, 1]) == (1024, 32, 1)


def test_a_phase_may_keep_its_steps() -> None:
    """TRACT's schedule for knowledge distillation; halving knows none."""
    phases = TractConfig(time_schedule=(1024, 32, 32, 1)).phases()
    assert [(p.teacher_steps, p.student_steps, p.group) for p in phases] == [(1024, 32, 32), (32, 32, 1), (32, 1, 32)]
    with pytest.raises(InputError, match="end_steps: must be below start_steps 32"):
        ProgressiveConfig(start_steps=32, end_steps=32)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1024", "at least two"),
        ("1024,30,1", "30 does not divide 1024"),
        ("32,64,1", "64 follows 32"),
        ("1024,0", "0 follows 1024"),
        ("1024,-1", "-1 follows 1024"),
        ("1024,x", "not a list of whole numbers"),
        ("", "not a list of whole numbers"),
    ],
)
def test_a_wrong_schedule_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parse_time_schedule(text)


@pytest.mark.parametrize("steps", [3, 10, 1000, 375_000])
def test_phases_cover_the_run_without_a_gap(steps: int) -> None:
    phases = lay_out_phases((4096, 256, 16, 1), steps)
    assert phases[0].start == 0
    assert phases[-1].end == steps
    assert all(a.end == b.start for a, b in pairwise(phases))
    assert max(p.steps for p in phases) - min(p.steps for p in phases) <= 1
    assert [(p.teacher_steps, p.student_steps, p.group) for p in phases] == [
        (4096, 256, 16),
        (256, 16, 16),
        (16, 1, 16),
    ]


def test_shares_set_the_relative_lengths() -> None:
    assert [p.steps for p in lay_out_phases((1024, 32, 1), 400, (1, 3))] == [100, 300]


@pytest.mark.parametrize(
    ("steps", "shares", "complaint"),
    [
        (1, (), "too few for 2 phases"),
        (10, (1.0,), "2 phases need 2 shares"),
        (10, (1.0, -1.0), "positive"),
        (10, (1.0, 1e6), "shorter than one step"),
    ],
)
def test_wrong_lengths_are_refused(steps: int, shares: tuple[float, ...], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        lay_out_phases((1024, 32, 1), steps, shares)


def test_progressive_halves() -> None:
    assert ProgressiveConfig().time_schedule() == (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
    assert ProgressiveConfig(start_steps=8192, end_steps=4).time_schedule()[-3:] == (16, 8, 4)
    assert {p.steps for p in ProgressiveConfig().phases()} == {50_000}
    assert {p.group for p in ProgressiveConfig().phases()} == {2}


def test_updates_per_phase_set_the_samples() -> None:
    config = ProgressiveConfig(start_steps=8, updates_per_phase=(100,), batch=16)
    assert config.samples == 3 * 100 * 16
    assert [p.steps for p in config.phases()] == [100, 100, 100]
    assert config == ProgressiveConfig(start_steps=8, updates_per_phase=100, batch=16)  # type: ignore[arg-type]
    again = replace(config, lr=1e-3, samples=480)
    assert [p.steps for p in again.phases()] == [10, 10, 10]
    longer = replace(again, updates_per_phase=(5, 10, 20))
    assert [p.steps for p in longer.phases()] == [5, 10, 20]
    assert [p.steps for p in replace(longer, samples=16 * 70).phases()] == [10, 20, 40]
    assert [p.steps for p in replace(longer, start_steps=16, updates_per_phase=(5, 20)).phases()] == [5, 5, 5, 20]
    with pytest.raises(InputError, match="updates_per_phase: there are only 3 phases"):
        ProgressiveConfig(start_steps=8, updates_per_phase=(1, 2, 3, 4))


@pytest.mark.parametrize("steps", [{"start_steps": 1000}, {"end_steps": 3}, {"start_steps": 4, "end_steps": 4}])
def test_progressive_wants_powers_of_two(steps: dict[str, int]) -> None:
    with pytest.raises(InputError, match="steps"):
        ProgressiveConfig(**steps)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"mu_s": 1.0}, {"mu_i": -0.1}, {"mu_i_bank": (2.0,)}, {"student_init": "x"}, {"solver": "rk4"}]
)
def test_wrong_tract_settings_name_their_field(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        TractConfig(**wrong)  # type: ignore[arg-type]
