"""A sweep that is resumed with more trials, or with other settings: what its folder remembers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from studies import RUN, SPACE, Driver

from tract_ray.config import InputError
from tract_ray.files import read_json, write_json
from tract_ray.search.population import population
from tract_ray.search.space import Space, rows
from tract_ray.search.study import Search
from tract_ray.sweep.definition import Sweep
from tract_ray.sweep.dry_run import foresee
from tract_ray.sweep.folder import identity, remember
from tract_ray.training import Paths

NAMED = {f"row {k}": {"method.mu_s": k / 10} for k in range(5)}


def sweep(folder: Path, space: Space = SPACE, **search: object) -> Sweep:
    folder = folder / "runs"
    return Sweep(
        experiment="mu",
        question="?",
        space=space,
        run=RUN,
        name="x",
        search=Search(**{"pruner": "none", **search}),  # type: ignore[arg-type]
        paths=Paths(folder, folder / "cache"),
        mlflow_uri="sqlite:///x.db",
    )


def test_missing_rows_are_run(tmp_path: Path) -> None:
    """Two rows of five, then all: each once, in their order."""
    for trials in (2, 5):
        driver = Driver(tmp_path / "study.db", trials=trials, space=rows(NAMED), pruner="none")
        while asked := driver.offered():
            driver.finish(asked, 1.0)
    assert [trial.params["row"] for trial in driver.study.trials] == list(NAMED)


def test_missing_anchors_come_first(tmp_path: Path) -> None:
    """One trial, then four: what a sweep of four would have tried, whatever was known."""
    found = []
    for path, begun in (("a", (1, 4)), ("b", (4,))):
        for trials in begun:
            driver = Driver(tmp_path / f"{path}.db", trials=trials, sampler="random", pruner="none")
            while asked := driver.offered():
                driver.finish(asked, 1.0)
        found.append([trial.params for trial in driver.study.trials])
    assert found[0] == found[1]
    assert [params["rate"] for params in found[0][:2]] == [0.5, 1.0]


def test_a_list_of_other_rows_is_another_sweep(tmp_path: Path) -> None:
    """As `--fixed` makes of the same names: nothing but the rows' settings tells them apart."""
    remember(sweep(tmp_path, rows(NAMED)))
    assert remember(sweep(tmp_path, rows(NAMED))) == ""
    longer = {name: {**changes, "method.samples": 2048} for name, changes in NAMED.items()}
    with pytest.raises(InputError, match=r"^resume: x was started with other .*row 0: method.samples was None, is 20"):
        remember(sweep(tmp_path, rows(longer)))


def test_a_sweep_has_an_identity_of_its_own(tmp_path: Path) -> None:
    """Two of one name have two; it stays when a sweep is resumed; one that was begun without gets none."""
    begun = sweep(tmp_path / "a"), sweep(tmp_path / "b")
    found = []
    for each in begun:
        remember(each)
        found.append(identity(each))
        remember(each)
        assert identity(each) == found[-1]
    assert len(set(found)) == 2
    assert all(len(name) == 32 for name in found)
    file = begun[0].folder / "sweep.json"
    write_json(file, {k: v for k, v in read_json(file, "name").items() if k != "id"})
    remember(begun[0])
    assert identity(begun[0]) == ""


def test_a_population_is_of_one_size(tmp_path: Path) -> None:
    def of(trials: int) -> Sweep:
        return sweep(tmp_path, population(trials // 4, 4, lr=(1e-4, 1e-2)), trials=trials)

    with pytest.raises(InputError, match=r"^trials: this population is of 8 trials, not 10$"):
        of(10)
    with pytest.raises(InputError, match=r"^warm-start: a population goes on from its own members only$"):
        replace(of(8), warm_start=("other",))
    remember(of(8))
    assert remember(of(8)) == ""
    with pytest.raises(InputError, match=r"^trials: x is a population of 8 trials, and with 12 its members would be o"):
        remember(of(12))


def test_more_trials_than_a_sampler_expected(tmp_path: Path) -> None:
    """TPE draws a third of its trials at random, up to ten: that of a longer sweep begins later."""
    remember(sweep(tmp_path, trials=12, sampler="tpe"))
    assert remember(sweep(tmp_path, trials=30, sampler="tpe")) == (
        "the first 12 trials were drawn as of a sweep of 12, 4 of them at random; begun with 30, 10 would have been"
    )
    remember(sweep(tmp_path / "other", trials=12, sampler="random"))
    assert remember(sweep(tmp_path / "other", trials=30, sampler="random")) == ""


def test_a_dry_run_foresees_what_halving_spares(tmp_path: Path) -> None:
    """By hand: of three, one at a time, the first goes on, the second if it is the better, the third if it is the best.

    The others end after 768 of 1,024 images, and have no second seed.
    """
    of = replace(sweep(tmp_path, trials=3, repeats=2, reduction=2, pruner="halving", sampler="random"), concurrency=1)
    foreseen, finish = foresee(of), 1 + 1 / 2 + 1 / 3
    assert foreseen.naive == 6 * 1024
    assert foreseen.trained == pytest.approx(finish * 2 * 1024 + (3 - finish) * 768, rel=0.15)
    assert foreseen.trained + foreseen.stopped == foreseen.naive
    assert not of.folder.exists()


def test_other_data_under_the_same_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their content; what an older version has not written down is not compared."""
    ours = sweep(tmp_path)
    remember(ours)
    with monkeypatch.context() as patch:
        patch.setattr("tract_ray.sweep.definition.data_key", lambda *_: "0123456789abcdef")
        with pytest.raises(InputError, match=r"^resume: x was started with other settings: data set.s content was "):
            remember(ours)
        file = ours.folder / "sweep.json"
        write_json(file, {k: v for k, v in read_json(file, "name").items() if k != "data"})
        assert remember(ours) == ""


def test_what_distances_are_of(tmp_path: Path) -> None:
    ours = sweep(tmp_path)
    others = [
        replace(RUN, teacher=replace(RUN.teacher, dataset="digits16")),
        replace(RUN, evaluation=replace(RUN.evaluation, features="inception_clean")),
        replace(RUN, evaluation=replace(RUN.evaluation, samples=1000)),
    ]
    assert (ours.measured["data set"], ours.measured["images"]) == ("digits", 4000)
    assert all(replace(ours, run=run).measured != ours.measured for run in others)
