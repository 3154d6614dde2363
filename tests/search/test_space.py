"""Search spaces: what a sweep prints of them, and how their draws become configurations."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from studies import RUN

from tract_ray.config import InputError, config_hash, to_dict
from tract_ray.search.space import Space, apply_changes


def test_ranges_as_a_person_reads_them() -> None:
    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        kind = trial.suggest_categorical("init", ["teacher", "continue"])
        more = {"method.batch": trial.suggest_int("batch", 32, 128)} if kind else {}
        return {"method.mu_s": 1 - trial.suggest_float("rate", 1e-3, 1, log=True), "method.student_init": kind, **more}

    assert Space(suggest).describe() == {
        "init": "one of teacher, continue",
        "batch": "32 to 128",
        "rate": "0.001 to 1, logarithmic",
    }


def test_a_conditional_space_is_described_whole() -> None:
    """And alike each time: a resumed sweep compares it with what it was."""

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        phases = trial.suggest_int("phases", 1, 10)
        return {f"cut_{phases}": trial.suggest_float(f"cut_{phases}", 0, 1)}

    found = [Space(suggest).describe() for _ in range(2)]
    assert found[0] == found[1] == {"phases": "1 to 10"} | {f"cut_{n}": "0 to 1" for n in range(1, 11)}


def test_changes_by_dotted_name() -> None:
    run = apply_changes(RUN, {"method.mu_s": 0.9, "evaluation.samples": 500, "teacher.training.lr": 0.01, "seed": 4})
    plain = to_dict(run)
    assert (plain["method"]["mu_s"], plain["evaluation"]["samples"]) == (0.9, 500)
    assert (plain["teacher"]["training"]["lr"], plain["seed"]) == (0.01, 4)
    assert config_hash(run) != config_hash(RUN)
    assert apply_changes(RUN, {}) == RUN
    assert apply_changes(RUN, {"method.time_schedule": [8, 2, 1]}).method.time_schedule == (8, 2, 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("method.mu_x", 0.5, "method: unknown 'mu_x'; did you mean 'mu_s'?"),
        ("metod.mu_s", 0.5, "space: the run has no 'metod.mu_s'"),
        ("method.mu_s.deep", 0.5, "space: the run has no 'method.mu_s.deep'"),
        ("method.mu_s", 1.0, "mu_s: must be in [0, 1), got 1.0"),
        ("method.mu_s", "high", "method.mu_s: expected a number, got 'high'"),
    ],
)
def test_changes_that_cannot_be(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        apply_changes(RUN, {name: value})
    assert str(caught.value).startswith(message)
