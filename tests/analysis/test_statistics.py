"""Intervals, comparisons and fronts against closed forms and tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tract_ray.analysis.statistics import Interval, interval, pareto_front, verdict
from tract_ray.config import InputError


def test_the_interval_of_two_values() -> None:
    """With one degree of freedom Student's t is Cauchy's: the quantile is tan(pi (0.975 - 0.5)) = 12.706."""
    found = interval([1.0, 3.0])
    assert (found.mean, found.count) == (2.0, 2)
    assert found.half == pytest.approx(math.tan(math.pi * 0.475) * math.sqrt(2) / math.sqrt(2), rel=1e-9)


def test_the_interval_of_three_values() -> None:
    """With two, `t = x / sqrt(2 a (1 - a))` with x = 2a - 1, a = 0.975: 4.3027; the deviation of 1, 2, 3 is 1."""
    a = 0.975
    t = (2 * a - 1) / math.sqrt(2 * a * (1 - a))
    assert interval([1.0, 2.0, 3.0]).half == pytest.approx(t / math.sqrt(3), rel=1e-9)
    assert t == pytest.approx(4.3027, abs=1e-4)
    assert (interval([1.0, 2.0, 3.0]).low, interval([1.0, 2.0, 3.0]).high) == (
        pytest.approx(2 - t / math.sqrt(3)),
        pytest.approx(2 + t / math.sqrt(3)),
    )


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    found = [interval(random.normal(5.0, 2.0, 4).tolist()) for _ in range(4000)]
    assert np.mean([i.low <= 5.0 <= i.high for i in found]) == pytest.approx(0.95, abs=0.01)


def test_one_value_has_no_interval() -> None:
    assert interval([4.0]) == Interval(4.0, None, 1)
    assert (interval([4.0]).low, interval([4.0]).high) == (4.0, 4.0)
    assert [str(interval(v)) for v in ([4.0], [1.0, 3.0])] == ["4", "2 ± 13"]
    with pytest.raises(InputError, match="at least one"):
        interval([])


def test_welch_of_a_table() -> None:
    """Welch's statistic and degrees of freedom written out; p by integrating Student's density."""
    first, second = [3.0, 4.0, 5.0], [6.0, 9.0, 6.0, 7.0]
    a, b = (np.var(v, ddof=1) / len(v) for v in (first, second))
    t = (np.mean(second) - np.mean(first)) / math.sqrt(a + b)
    df = (a + b) ** 2 / (a**2 / 2 + b**2 / 3)
    x = np.linspace(t, 400, 2_000_001)
    density = (
        math.gamma((df + 1) / 2) / math.sqrt(df * math.pi) / math.gamma(df / 2) * (1 + x**2 / df) ** -((df + 1) / 2)
    )
    p = 2 * float(np.trapezoid(density, x))
    found = verdict({"b": second, "a": first, "c": [20.0, 21.0]})
    assert (found.best, found.second) == ("a", "b")
    assert found.p == pytest.approx(p, rel=1e-4)
    assert found.distinguishable
    assert found.text == f"a (4 ± 2.5) and b (7 ± 2.3) differ: p = {p:.2g} (Welch's t-test)"


def test_scatter_hides_a_difference() -> None:
    found = verdict({"a": [1.0, 5.0, 3.0], "b": [2.0, 6.0, 4.0]})
    assert not found.distinguishable
    assert found.text.startswith("a (3 ± 5) and b (4 ± 5) cannot be told apart with 3 and 3 seeds: p = 0.")


def test_false_alarms_are_as_rare_as_they_should_be() -> None:
    random = np.random.default_rng(1)
    alarms = [
        verdict({"a": random.normal(0, 1, 5).tolist(), "b": random.normal(0, 3, 5).tolist()}).distinguishable
        for _ in range(2000)
    ]
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.015)


def test_one_seed_tells_nothing() -> None:
    both, one = verdict({"a": [1.0], "b": [2.0]}), verdict({"a": [1.0], "b": [2.0, 2.1]})
    assert both.text == "whether a (1) and b (2) differ cannot be told: each was run with one seed"
    assert one.text.endswith("cannot be told: a was run with one seed")
    assert (both.p, both.distinguishable, one.distinguishable) == (None, False, False)
    alone = verdict({"a": [1.0, 2.0]})
    assert (alone.second, alone.distinguishable) == (None, False)
    assert alone.text.endswith("is the only configuration")
    with pytest.raises(InputError, match="no configuration"):
        verdict({})


def test_values_without_scatter() -> None:
    assert verdict({"a": [1.0, 1.0], "b": [2.0, 2.0]}).p == 0.0
    assert verdict({"a": [1.0, 1.0], "b": [1.0, 1.0]}).p == 1.0
    assert verdict({"a": [1.0, 1.0], "b": [2.0, 2.2, 2.1]}).distinguishable


def test_the_front_is_what_nothing_beats() -> None:
    random = np.random.default_rng(0)
    points = [(float(a), float(b)) for a, b in random.integers(0, 12, (60, 2))]  # with ties and equal pairs

    def beats(p: tuple[float, float], q: tuple[float, float]) -> bool:
        return p != q and p[0] <= q[0] and p[1] <= q[1]

    front = pareto_front(points)
    assert sorted(front) == [k for k, q in enumerate(points) if not any(beats(p, q) for p in points)]
    assert all(points[a][1] <= points[b][1] for a, b in itertools.pairwise(front))


def test_fronts_of_few_points() -> None:
    assert pareto_front([]) == []
    assert pareto_front([(1.0, 2.0)]) == [0]
    assert pareto_front([(2.0, 1.0), (1.0, 2.0), (2.0, 2.0), (2.0, 1.0)]) == [0, 3, 1]
    assert pareto_front([(math.nan, 0.0), (1.0, 1.0), (0.5, math.nan)]) == [1]
