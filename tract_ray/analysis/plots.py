"""Plots of a sweep, the same for the terminal's user, the MLflow record and the notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from tract_ray.analysis.rows import TrialRow, finished, objectives
from tract_ray.analysis.statistics import Interval, interval, pareto_front
from tract_ray.search.space import ROW

matplotlib.use("Agg", force=False)
INK, ACCENT, MUTED = "#22303c", "#c2410c", "#8a99a6"


class Plot(Figure):
    """A figure that a notebook shows without pyplot's global state."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def _figure(width: float = 6.4, height: float = 4.0) -> tuple[Figure, Axes]:
    figure = Plot(figsize=(width, height), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e8ec", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def response(rows: Sequence[TrialRow], name: str, metric: str, reference: Mapping[str, float] | None = None) -> Figure:
    """Distance of finished trials against mu_s (or another mu), on an axis that spreads the values near 1.

    The line joins the best trial of each value.
    """
    figure, axes = _figure()
    points = [(float(r.changes[name]), r) for r in finished(list(rows)) if name in r.changes]
    points.sort(key=lambda point: point[0])  # of equal ones the better first
    xs = [1 - mu for mu, _ in points]
    ys = [float(r.distance or 0) for _, r in points]
    best: dict[float, float] = {}
    for x, y in zip(xs, ys, strict=True):
        best.setdefault(x, y)
    axes.plot(list(best), list(best.values()), color=MUTED, linewidth=1, zorder=1)
    axes.scatter(
        xs,
        ys,
        s=42,
        color=[INK if r.anchor else ACCENT for _, r in points],
        zorder=2,
        edgecolors="white",
        linewidths=0.6,
    )
    several = [(x, interval(r.seeds)) for x, (_, r) in zip(xs, points, strict=True) if len(r.seeds) > 1]
    if several:
        error_bars(axes, [x for x, _ in several], [mean for _, mean in several], color=MUTED)
    _mu_axis(axes, name.rpartition(".")[2])
    _log_axis(axes)
    axes.set_ylabel(metric)
    for label, value in (reference or {}).items():
        axes.axhline(value, color=MUTED, linestyle=":", linewidth=1)
        axes.annotate(label, (0.01, value), xycoords=("axes fraction", "data"), fontsize=8, color=MUTED, va="bottom")
    axes.set_title("dark: anchors, orange: found by search", fontsize=9, color=MUTED, loc="left")
    return figure


def bank_response(rows: Sequence[TrialRow], metric: str, most: int = 6) -> Figure:
    """Distance against mu_i, on the noise that chooses: a line for each bank of the best `most` finished trials."""
    figure, axes = _figure()
    for rank, row in enumerate(finished(list(rows))[:most]):
        points = sorted(row.distances.items())
        xs, ys = [1 - mu for mu, _ in points], [d for _, d in points]
        axes.plot(
            xs,
            ys,
            marker="o",
            markersize=4,
            linewidth=2 if rank == 0 else 1,
            color=ACCENT if rank == 0 else INK,
            alpha=1 if rank == 0 else 0.35,
            label=row.label if rank == 0 else None,
        )
    _mu_axis(axes, "mu_i")
    axes.set_ylabel(f"{metric}, as chosen from")
    axes.legend(frameon=False, fontsize=8)
    return figure


def history(rows: Sequence[TrialRow], metric: str) -> Figure:
    """Distances in the order of the trials, and that of the best so far, which another set of noise chooses."""
    figure, axes = _figure()
    best: list[float] = []
    leader: TrialRow | None = None
    for x, row in enumerate(rows):
        if row.status != "finished":  # its last score, if any, is that of a sampler of more steps: not to be compared
            axes.scatter(x, 0.97, transform=axes.get_xaxis_transform(), color=MUTED, marker="x", s=26, zorder=2)
        else:
            axes.scatter(x, float(row.distance or 0), color=INK, s=30, zorder=2)
            leader = row if leader is None or row.chosen_by < leader.chosen_by else leader
        best.append(float(leader.distance or 0) if leader else float("nan"))
    axes.plot(range(len(best)), best, color=ACCENT, drawstyle="steps-post", linewidth=1.5, zorder=1)
    _log_axis(axes)
    axes.set_xlabel("trial (crosses: stopped early or failed)")
    axes.set_ylabel(metric)
    return figure


def importance_bars(values: Mapping[str, float]) -> Figure:
    """Share of the distance's variance that each parameter explains (fANOVA)."""
    figure, axes = _figure(6.4, 1.2 + 0.5 * max(len(values), 1))
    names = sorted(values, key=values.__getitem__)
    axes.barh(names, [values[n] for n in names], color=INK, height=0.55)
    axes.set_xlim(0, 1)
    axes.set_xlabel("importance")
    if not values:
        axes.annotate("too few finished trials", (0.5, 0.5), xycoords="axes fraction", ha="center", color=MUTED)
    return figure


def pareto(
    points: Mapping[str, tuple[float, float]],
    metric: str,
    cost: str,
    chosen_by: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """(distance, cost) of each configuration by name; those that no other one beats are joined and named.

    Which these are is told by `chosen_by`, where it is given.
    """
    figure, axes = _figure()
    names = list(points)
    front = [names[k] for k in pareto_front([(chosen_by or points)[name] for name in names])]
    others = [points[name] for name in names if name not in front]
    best = [points[name] for name in front]
    axes.scatter([c for _, c in others], [d for d, _ in others], color=MUTED, s=26, zorder=2)
    axes.plot([c for _, c in best], [d for d, _ in best], color=ACCENT, drawstyle="steps-post", linewidth=1.5, zorder=1)
    axes.scatter([c for _, c in best], [d for d, _ in best], color=ACCENT, s=42, zorder=3, edgecolors="white")
    for name in front:
        distance, price = points[name]
        axes.annotate(name, (price, distance), xytext=(5, 5), textcoords="offset points", fontsize=8, color=INK)
    _log_axis(axes)
    axes.set_xscale("log")
    axes.margins(x=0.15)  # for the names
    axes.set_xlabel(cost)
    axes.set_ylabel(metric)
    axes.set_title("orange: no other is better at the same cost", fontsize=9, color=MUTED, loc="left")
    return figure


def intervals(values: Mapping[str, Interval], metric: str) -> Figure:
    """Mean and 95% interval of each configuration, best on top; the best one's interval is shaded across all."""
    names = sorted(values, key=lambda name: -values[name].mean)
    figure, axes = _figure(6.4, 1.2 + 0.4 * max(len(names), 1))
    if names:
        best = values[names[-1]]
        axes.axvspan(best.low, best.high, color=ACCENT, alpha=0.12, linewidth=0)
    for y, name in enumerate(names):
        error_bars(axes, [values[name].mean], [values[name]], y=[y], color=ACCENT if name == names[-1] else INK)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    if names and values[names[0]].mean > 5 * values[names[-1]].mean and min(v.low for v in values.values()) > 0:
        _log_axis(axes, "x")
    axes.set_xlabel(f"{metric}, mean and 95% interval over seeds")
    return figure


def error_bars(
    axes: Axes, x: Sequence[float], means: Sequence[Interval], *, y: Sequence[float] | None = None, color: str = INK
) -> None:
    """Means as points with their intervals as bars: along y at `x`, or along x at `y`. One value has no bar."""
    halves = [float("nan") if mean.half is None else mean.half for mean in means]
    upright = y is None
    axes.errorbar(
        x,
        [mean.mean for mean in means] if y is None else y,
        yerr=halves if upright else None,
        xerr=None if upright else halves,
        fmt="o",
        markersize=5,
        color=color,
        elinewidth=1.2,
        capsize=3,
        zorder=2,
    )


def _log_axis(axes: Axes, name: str = "y") -> None:
    """A logarithmic distance axis with plain numbers."""
    axes.set(**{f"{name}scale": "log"})
    axis = axes.yaxis if name == "y" else axes.xaxis
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))


def _mu_axis(axes: Axes, name: str) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    low, high = sorted(axes.get_xlim())
    ticks = [t for t in (1.0, 0.5, 0.1, 0.01, 0.001, 1e-4, 1e-5) if low <= t <= high]
    axes.set_xticks(ticks, [f"{1 - t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel(name)


def plots(
    rows: Sequence[TrialRow], metric: str, importance: Mapping[str, float], reference: Mapping[str, float] | None = None
) -> dict[str, Figure]:
    """All figures of a sweep, by file name."""
    figures = {"history": history(rows, metric)}
    if not any(ROW in r.params for r in rows):
        figures["importances"] = importance_bars(importance)
    if any("method.mu_s" in r.changes for r in finished(list(rows))):
        figures["mu_s"] = response(rows, "method.mu_s", metric, reference)
    best = finished(list(rows))
    if any(len(r.seeds) > 1 for r in best):
        figures["intervals"] = intervals(
            {r.label: interval(r.seeds or (r.distance or 0.0,)) for r in best[:40]}, metric
        )
    if len({r.parameters for r in best}) > 1:
        points = {r.label: (float(r.distance or 0), float(r.parameters)) for r in best}
        figures["pareto"] = pareto(points, metric, "parameters", {r.label: objectives(r) for r in best})
    if any(len(r.distances) > 1 for r in rows):
        figures["mu_i"] = bank_response(rows, metric)
    return figures
