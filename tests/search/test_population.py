"""Population-based training: who goes on from whom, and that a member is what its path says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from studies import RUN, Driver

from tract_ray.analysis.rows import PASSED_ON, finished, read_rows
from tract_ray.config import InputError
from tract_ray.search.population import population
from tract_ray.training.stages import stages_of

MEMBERS, PARTS = 4, 4
SPACE = population(MEMBERS, PARTS, lr=(1e-4, 1e-2), seed=3)


def generation(driver: Driver, scores: list[float]) -> list[dict[str, Any]]:
    """Let the next members train one part each; their changes."""
    members = [driver.ask() for _ in scores]
    assert driver.waits()  # the next part begins when all have ended this one
    for given, score in zip(members, scores, strict=True):
        driver.finish(given, score)
    trials = driver.study.get_trials(deepcopy=False)
    return [trials[given.number].user_attrs["changes"] for given in members]


def test_the_worst_goes_on_from_the_best(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "study.db", trials=MEMBERS * PARTS, space=SPACE, pruner="none")
    first = generation(driver, [5.0, 3.0, 9.0, 4.0])
    second = generation(driver, [5.0, 3.0, 2.0, 4.0])
    for member in (0, 1, 3):  # on as they were
        assert second[member]["method.lr_path"] == first[member]["method.lr_path"]
    best, taken = first[1]["method.lr_path"][0], second[2]["method.lr_path"]
    assert taken[0] == best
    assert taken[1] in (pytest.approx(best * 1.5), pytest.approx(best / 1.5), 1e-4, 1e-2)
    assert taken[1:] == [taken[1]] * 3
    assert driver.study.trials[6].user_attrs["parent"] == 1
    third = generation(driver, [1.0, 3.0, 2.0, 4.0])
    assert third[0]["method.lr_path"][:2] == taken[:2]  # the worst of the second was member 0, the best member 2
    assert [changes["parts"] for changes in third] == [3] * 4


def test_only_the_last_part_counts(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "study.db", trials=MEMBERS * PARTS, space=SPACE, pruner="none")
    for _ in range(PARTS - 1):
        generation(driver, [0.1, 0.2, 0.3, 0.4])
    last = [driver.ask() for _ in range(MEMBERS)]
    for given, score in zip(last, [4.0, 3.0, 2.0, 5.0], strict=True):
        driver.finish(given, score)
    assert driver.offered() is None
    for number in range(MEMBERS * PARTS):  # as if each had written its result
        assert driver.study.trials[number].state.name == "COMPLETE"
    rows = read_rows(driver.study, tmp_path)
    assert [row.status for row in rows] == [PASSED_ON] * 12 + ["finished"] * 4
    assert finished(rows)[0].name == "trial-0014"


def test_a_part_is_a_stage(tmp_path: Path) -> None:
    """A member's next run shares all of its earlier parts; a run to the end of part two trains half."""
    driver = Driver(tmp_path / "study.db", trials=MEMBERS * PARTS, space=SPACE, pruner="none")
    members = [driver.ask() for _ in range(MEMBERS)]
    for place, given in enumerate(members):
        driver.finish(given, float(place))
    first = [given.run for given in members]
    second = [driver.ask().run for _ in range(MEMBERS)]
    assert [sum(stage.samples for stage in stages_of(run)) for run in (first[0], second[0])] == [256, 512]
    assert stages_of(second[0])[0].key == stages_of(first[0])[0].key
    assert stages_of(second[0])[0].scored != stages_of(first[0])[0].scored  # it was the first one's end, scored whole
    assert stages_of(second[3])[0] == stages_of(second[0])[0]  # the worst took over the best
    assert stages_of(second[3])[1].key != stages_of(second[0])[1].key
    assert RUN.method.samples == 1024


def test_an_interrupted_population_is_the_same(tmp_path: Path) -> None:
    def paths(path: Path, interrupt: bool) -> list[Any]:
        driver = Driver(path, trials=12, space=population(4, 3, lr=(1e-4, 1e-2)), pruner="none")
        while (given := driver.offered()) is not None:
            if interrupt:
                driver = Driver(path, trials=12, space=population(4, 3, lr=(1e-4, 1e-2)), pruner="none")
                given = driver.ask()
            driver.finish(given, (given.number * 7 % 5) + 1.0)
        return [trial.user_attrs["changes"] for trial in driver.study.trials]

    assert paths(tmp_path / "a.db", True) == paths(tmp_path / "b.db", False)


def test_what_makes_no_population() -> None:
    with pytest.raises(InputError, match=r"^members: must be at least 2, got 1$"):
        population(1, 4, lr=(1e-4, 1e-2))
