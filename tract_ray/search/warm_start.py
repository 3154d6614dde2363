"""What earlier sweeps found, put into the study of a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from tract_ray.config import require
from tract_ray.search.sealed import read_study
from tract_ray.search.space import Suggest, range_text
from tract_ray.search.study import MEASURED

WARM_START, NUMBER = "warm_start", "warm_start_trial"  # user attributes: the sweep that ran a trial, its number there


def warm_start(
    study: optuna.Study,
    earlier: Sequence[tuple[Path, str]],
    suggest: Suggest,
    measured: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Add the finished trials of earlier sweeps, given as (database file, study name), to `study`.

    Returns how many each sweep gave. They carry the user attribute `warm_start`, the name of the sweep that ran them,
    and count for samplers that learn (tpe, gp) only. Trials that are there already are not added again, so this may be
    called at every resume. `InputError` where a sweep cannot be read, minimises something else, drew from another
    space than `suggest`, or has distances of something else than `measured`: then nothing is added.
    """
    found = {name: _finished(path, name, study, suggest, measured) for path, name in earlier}
    known = {origin(trial, study.study_name) for trial in study.get_trials(deepcopy=False)}
    for name, trials in found.items():
        for trial in trials:
            source, number = origin(trial, name)
            if (source, number) not in known:
                known.add((source, number))
                study.add_trial(
                    optuna.create_trial(
                        params=trial.params,
                        distributions=trial.distributions,
                        values=trial.values,
                        user_attrs={WARM_START: source, NUMBER: number},
                    )
                )
    return {name: len(trials) for name, trials in found.items()}


def own_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that this study ran or will run: what counts and tables are about."""
    return [trial for trial in study.get_trials(deepcopy=False) if WARM_START not in trial.user_attrs]


def origin(trial: FrozenTrial, study: str) -> tuple[str, int]:
    """The sweep that ran a trial found in `study`, and its number there."""
    return trial.user_attrs.get(WARM_START, study), trial.user_attrs.get(NUMBER, trial.number)


def _finished(
    path: Path, name: str, study: optuna.Study, suggest: Suggest, measured: Mapping[str, Any] | None
) -> list[FrozenTrial]:
    """The finished trials of the study `name` in `path`, after all that could keep them out was checked."""
    require(path.is_file(), "warm-start", f"there is no sweep {name!r} ({path} does not exist)")
    source = read_study(path, name, "warm-start")
    trials: list[FrozenTrial] = source.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    old, new = ([direction.name.lower() for direction in s.directions] for s in (source, study))
    require(old == new, "warm-start", f"{name} has the objectives {', '.join(old)}, this sweep {', '.join(new)}")
    if measured is not None:
        _check_measured(name, source.user_attrs.get(MEASURED), measured)
    differences = sorted({text for trial in trials for text in _differences(trial, suggest)})
    shown = "; ".join(differences[:5]) + ("; …" if len(differences) > 5 else "")
    require(not differences, "warm-start", f"{name} searched another space: {shown}")
    require(bool(trials), "warm-start", f"{name} has no finished trial")
    return trials


def _check_measured(name: str, before: Mapping[str, Any] | None, measured: Mapping[str, Any]) -> None:
    """Refuse distances that are of something else: of other images, or on other features."""
    require(before is not None, "warm-start", f"{name} does not say what its distances are of; --resume it once")
    assert before is not None
    changed = [f"{key} was {before.get(key)}, is {now}" for key, now in measured.items() if before.get(key) != now]
    require(not changed, "warm-start", f"{name} has distances of something else: {'; '.join(changed)}")


def _differences(trial: FrozenTrial, suggest: Suggest) -> list[str]:
    """What keeps `trial` from being a draw of `suggest`, which is asked again with its values."""
    replay: Any = _Replay(trial.params)
    try:
        suggest(replay)
    except _Missing as missing:
        return [f"it has no {missing}"]
    asked = replay.distributions
    unasked = [f"{name} is not searched here" for name in trial.distributions.keys() - asked.keys()]
    changed = [
        f"{name} was {_text(was, now)}, is {_text(now, was)}"
        for name, now in asked.items()
        if (was := trial.distributions[name]) != now
    ]
    return [*unasked, *changed]


class _Missing(Exception):
    """A parameter that the earlier trial has not."""


class _Replay(optuna.trial.FixedTrial):  # type: ignore[misc]
    """An earlier trial's values, without FixedTrial's warnings of other ranges: those are what is to be found out.

    `_suggest` is private, but it is where all of Optuna's `suggest_…` meet.
    """

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._params:
            raise _Missing(name)
        self._distributions[name] = distribution
        return self._params[name]


def _text(distribution: BaseDistribution, other: BaseDistribution) -> str:
    """Its range, or all of it where the ranges are the same."""
    text = range_text(distribution)
    return text if text != range_text(other) else str(distribution)
