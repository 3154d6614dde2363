"""Figures from rows that are made up: every number that should be seen is drawn, once, where it belongs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure

from tract_ray.analysis.plots import (
    bank_response,
    error_bars,
    history,
    importance_bars,
    intervals,
    pareto,
    plots,
    response,
)
from tract_ray.analysis.rows import TrialRow
from tract_ray.analysis.statistics import interval


def row(number: int, status: str, mu_s: float, distance: float | None, bank: Sequence[float] = ()) -> TrialRow:
    return TrialRow(
        name=f"trial-{number:04d}",
        status=status,
        params={"rate": 1 - mu_s},
        changes={"method.mu_s": mu_s},
        samples=1000,
        distance=distance,
        distances={mu: (distance or 0) + mu for mu in bank},
        anchor=number < 2,
    )


ROWS = [
    row(0, "finished", 0.5, 8.0, (0.0, 0.9, 0.999)),
    row(1, "finished", 0.0, 9.0, (0.0, 0.9, 0.999)),
    row(2, "stopped early", 0.99, 40.0),
    row(3, "finished", 0.9, 7.0, (0.0, 0.9, 0.999)),
    row(4, "failed", 0.2, None),
    row(5, "finished", 0.99, 20.0, (0.0, 0.9, 0.999)),
]


def points(figure: Figure) -> list[tuple[float, float]]:
    """What is scattered, in the order in which it was drawn."""
    return [tuple(p) for c in figure.axes[0].collections for p in np.asarray(c.get_offsets()).tolist()]


def test_history_shows_every_final_score_and_the_best_so_far() -> None:
    figure = history(ROWS, "fid_digits")
    axes = figure.axes[0]
    crosses = [p for p in points(figure) if p[1] == 0.97]  # at the top edge: their last scores are of another sampler
    assert [x for x, _ in crosses] == [2, 4]
    assert [p for p in points(figure) if p not in crosses] == [(0, 8.0), (1, 9.0), (3, 7.0), (5, 20.0)]
    best = axes.lines[0].get_ydata()
    assert list(best) == [8.0, 8.0, 8.0, 7.0, 7.0, 7.0]  # a stopped trial's score is no best
    assert (axes.get_ylabel(), axes.get_yscale()) == ("fid_digits", "log")
    assert axes.get_xlabel().startswith("trial")


def test_history_before_anything_finished() -> None:
    figure = history([row(0, "stopped early", 0.5, 9.0), ROWS[0]], "fid_digits")
    best = figure.axes[0].lines[0].get_ydata()
    assert math.isnan(best[0])
    assert best[1] == 8.0


def test_the_response_to_mu_s_shows_finished_trials_only() -> None:
    """On an axis of 1 - mu, written as mu, from small to large."""
    figure = response(ROWS, "method.mu_s", "fid_digits", {"teacher, 32 steps": 6.0})
    axes = figure.axes[0]
    assert sorted(points(figure)) == [
        (pytest.approx(0.01), 20.0),
        (pytest.approx(0.1), 7.0),
        (0.5, 8.0),
        (1.0, 9.0),
    ]
    assert axes.get_xlabel() == "mu_s"
    left, right = axes.get_xlim()
    assert left > right
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert labels == ["0", "0.5", "0.9", "0.99"]
    assert [line.get_ydata()[0] for line in axes.lines[1:]] == [6.0]
    assert "teacher, 32 steps" in [text.get_text() for text in axes.texts]


def test_the_line_joins_the_best_of_each_value() -> None:
    again = row(6, "finished", 0.5, 30.0)
    figure = response([*ROWS, again], "method.mu_s", "fid_digits")
    assert len(points(figure)) == 5
    assert list(figure.axes[0].lines[0].get_ydata()) == [9.0, 8.0, 7.0, 20.0]


@pytest.mark.parametrize(("worst", "scale"), [(40.0, "linear"), (60.0, "log")])
def test_intervals_that_differ_much_are_on_a_logarithmic_axis(worst: float, scale: str) -> None:
    values = {"a": interval([9.9, 10.1]), "b": interval([worst - 0.1, worst + 0.1])}
    assert intervals(values, "fid_digits").axes[0].get_xscale() == scale


def test_the_response_to_mu_i_has_a_line_for_each_finished_trial() -> None:
    figure = bank_response(ROWS, "fid_digits", most=3)
    lines = figure.axes[0].lines
    assert lines[0].get_label() == "trial-0003"  # the best one is named
    assert [list(line.get_ydata()) for line in lines] == [[b, b + 0.9, b + 0.999] for b in (7.0, 8.0, 9.0)]
    assert np.allclose(lines[0].get_xdata(), [1, 0.1, 0.001])
    assert figure.axes[0].get_xlabel() == "mu_i"


def test_importances() -> None:
    bars = importance_bars({"rate": 0.7, "residual": 0.3}).axes[0].patches
    assert [bar.get_width() for bar in bars] == [0.3, 0.7]
    assert [text.get_text() for text in importance_bars({}).axes[0].texts] == ["too few finished trials"]


def test_the_front_is_joined_and_named() -> None:
    costs = {"large": (5.0, 60e6), "middle": (6.0, 20e6), "waste": (7.0, 60e6), "small": (9.0, 5e6)}
    axes = pareto(costs, "fid_digits", "parameters").axes[0]
    others, front = ([tuple(p) for p in np.asarray(c.get_offsets()).tolist()] for c in axes.collections)
    assert others == [(60e6, 7.0)]
    assert front == [(5e6, 9.0), (20e6, 6.0), (60e6, 5.0)]
    assert [list(v) for v in (axes.lines[0].get_xdata(), axes.lines[0].get_ydata())] == [
        [5e6, 20e6, 60e6],
        [9.0, 6.0, 5.0],
    ]
    assert [text.get_text() for text in axes.texts] == ["small", "middle", "large"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("parameters", "fid_digits", "log")
    assert not pareto({}, "fid_digits", "parameters").axes[0].texts


def test_intervals_are_as_wide_as_they_are() -> None:
    values = {"mu_s 0.5": interval([5.0, 6.0, 7.0]), "mu_s 0": interval([9.0]), "mu_s 0.9": interval([6.0, 6.5])}
    axes = intervals(values, "fid_digits").axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["mu_s 0", "mu_s 0.9", "mu_s 0.5"]  # best on top
    for y, name in enumerate(("mu_s 0", "mu_s 0.9", "mu_s 0.5")):
        found = axes.containers[y]
        (bar,) = found[2]
        ends = bar.get_segments()[0].tolist()
        expected = [[values[name].low, y], [values[name].high, y]] if values[name].count > 1 else []
        assert ends == [pytest.approx(end) for end in expected]
        assert found[0].get_xdata()[0] == values[name].mean
    assert len(axes.containers) == 3
    shade = axes.patches[0].get_extents()
    left, right = axes.transData.inverted().transform([(shade.x0, 0), (shade.x1, 0)])[:, 0]
    assert (left, right) == (pytest.approx(values["mu_s 0.5"].low), pytest.approx(values["mu_s 0.5"].high))
    assert axes.get_xlabel() == "fid_digits, mean and 95% interval over seeds"


def test_error_bars_stand_upright_in_a_response() -> None:
    axes = response(ROWS, "method.mu_s", "fid_digits").axes[0]
    error_bars(axes, [0.5], [interval([5.0, 7.0])])
    ((low, high),) = (bar.get_segments()[0].tolist() for bar in axes.containers[0][2])
    assert [low[0], high[0]] == [0.5, 0.5]
    assert [low[1], high[1]] == [pytest.approx(interval([5.0, 7.0]).low), pytest.approx(interval([5.0, 7.0]).high)]


def test_all_figures_of_a_sweep(tmp_path_factory: pytest.TempPathFactory) -> None:
    figures = plots(ROWS, "fid_digits", {"rate": 1.0})
    assert sorted(figures) == ["history", "importances", "mu_i", "mu_s"]
    for name, figure in figures.items():
        figure.savefig(tmp_path_factory.getbasetemp() / f"{name}.png")
    assert sorted(plots(ROWS[4:5], "fid_digits", {})) == ["history", "importances"]
