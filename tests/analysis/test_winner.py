"""A sweep's winner is chosen on other noise than what is said of it."""

from __future__ import annotations

from matplotlib.figure import Figure

from tract_ray.analysis.findings import finding
from tract_ray.analysis.plots import history, pareto, plots
from tract_ray.analysis.recorded_sweep import RecordedSweep
from tract_ray.analysis.rows import TrialRow, finished, objectives


def row(number: int, selection: float, distance: float, parameters: int = 1000) -> TrialRow:
    """Two seeds around `distance` on fresh noise."""
    seeds, name = (distance - 0.25, distance + 0.25), f"trial-{number:04d}"
    of = {"selection": selection, "distance": distance, "seeds": seeds, "mu_i": 0.5}
    return TrialRow(name, "finished", {}, {"method.lr": number}, 64, parameters=parameters, **of)


# The first was lucky on the noise that it reports; the second is the best on the noise that chooses.
ROWS = [row(0, 5.0, 3.0), row(1, 4.0, 4.5), row(2, 6.0, 6.0)]


def line(figure: Figure) -> list[float]:
    return list(figure.axes[0].lines[0].get_ydata())


def test_the_least_distance_does_not_win() -> None:
    assert [r.name for r in finished(ROWS)] == ["trial-0001", "trial-0000", "trial-0002"]
    assert RecordedSweep("s", "fid", ROWS).table()["selection"].tolist() == [4.0, 5.0, 6.0]
    assert finding(finished(ROWS), costly=False).startswith("trial-0001 (4.5 ± 3.2) and trial-0000 (3 ± 3.2)")
    assert line(history(ROWS, "fid")) == [3.0, 4.5, 4.5]
    assert "mu_i" not in plots(ROWS, "fid", {})


def test_a_front_is_chosen_as_the_winner_is() -> None:
    """By their distances the large one would not be on it."""
    rows = [row(0, 5.0, 3.0, 1000), row(1, 4.0, 4.5, 2000)]
    shown = {r.name: (r.distance or 0.0, 1.0 * r.parameters) for r in rows}
    axes = pareto(shown, "fid", "parameters", {r.name: objectives(r) for r in rows}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["trial-0000", "trial-0001"]


def test_a_row_of_an_older_version_is_chosen_by_its_distance() -> None:
    plain = ROWS[0].to_json()
    assert TrialRow.from_json(plain) == ROWS[0]
    del plain["selection"]
    assert TrialRow.from_json(plain).chosen_by == 3.0
