"""The account of a sweep, over hundreds of random ones: repeats, sharing, halving, failures, kills and resumes."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.trial import TrialState
from studies import BANKED, SHARING, SPACE

from tract_ray.analysis.ledger import ledger_of
from tract_ray.search.account import Account, Entry
from tract_ray.search.budget import Budget
from tract_ray.search.jobs import JobQueue
from tract_ray.search.rehearsal import SPEED, Rehearsal, RehearsedStages
from tract_ray.search.space import Space, rows
from tract_ray.search.study import CUT, Search, enqueue_anchors, sampler_for

LENGTHS = Space(lambda trial: {"method.samples": 64 * trial.suggest_categorical("steps", [8, 16, 32, 48])})
LISTED = rows({f"{k}": {"method.mu_s": k / 8, "method.samples": 512 * (1 + k % 3)} for k in range(8)})
SWEEPS, PIECES = 300, 4


def searched(draw: random.Random) -> tuple[Space, Search]:
    """A space and how it is searched."""
    space = draw.choice([SPACE, SHARING, LENGTHS, LISTED])
    budget = draw.choice(
        [
            None,
            Budget(images=draw.randrange(6000, 20000)),
            Budget(seconds=draw.randrange(2000, 20000) / SPEED),
        ]
    )
    return space, Search(
        trials=draw.randint(1, 8),
        repeats=draw.randint(1, 3),
        sampler="random",
        pruner=draw.choice(["halving", "none"]),
        reduction=2,
        rungs=draw.randint(1, 2),
        finish_anchors=draw.random() < 0.5,
        budget=budget,
    )


def check(queue: JobQueue, rehearsal: Rehearsal) -> None:
    """What holds at every moment."""
    account, budget = queue.account, queue.search.budget
    trained = account.total("trained")
    assert trained == sum(place.trained for place in rehearsal.places.values())
    if budget and budget.images is not None:
        assert trained + account.promised <= budget.images
    if budget and budget.seconds is not None:  # a run hears of the end at its next mark
        longest = 64 * 48
        assert account.total("device_seconds") <= budget.seconds + rehearsal.slots * longest / SPEED
    ledger = ledger_of(account)
    assert ledger.naive - ledger.stopped - ledger.failed - ledger.shared == ledger.trained
    assert min(ledger.stopped, ledger.failed, ledger.shared, account.promised) >= 0
    stages = account.by_stage().values()
    assert (sum(seen for seen, _ in stages), sum(t for _, t in stages)) == (account.total("samples"), trained)
    assert account.foreseen(0) >= account.total("samples")


def ended(queue: JobQueue) -> None:
    """What holds when there is no more."""
    account, states = queue.account, [trial.state for trial in queue.study.get_trials(deepcopy=False)]
    assert account.promised == 0
    assert queue.foreseen() == account.total("samples")  # the progress is at its end
    if queue.search.budget is None:
        assert len(states) == queue.search.trials
        assert all(state.is_finished() for state in states)
    results = {number for (number, _), entry in account.entries.items() if entry.done}
    shown = {
        trial.number
        for trial in queue.study.get_trials(deepcopy=False)
        if trial.state == TrialState.COMPLETE or (trial.state == TrialState.RUNNING and trial.user_attrs.get(CUT))
    }
    failed = {n for n, state in enumerate(states) if state == TrialState.FAIL}
    assert results - failed <= shown  # no result is lost
    again = JobQueue(queue.study, queue.space, queue.run, queue.search, queue.store)
    assert [again.account.total(name) for name in ("samples", "trained")] == [
        account.total(name) for name in ("samples", "trained")
    ]
    assert ledger_of(again.account) == ledger_of(account)


def go_through(seed: int) -> None:
    """One random sweep, killed up to three times, to its end."""
    draw = random.Random(seed)
    space, search = searched(draw)
    failing = draw.choice([0.0, 0.0, 0.1])
    study = optuna.create_study(sampler=sampler_for(space, search), pruner=search.build_pruner())
    enqueue_anchors(study, space, search)
    stages = RehearsedStages() if draw.random() < 0.7 else None
    rehearsal = Rehearsal(stages, slots=draw.randint(1, 4), fails=lambda job: draw.random() < failing)
    for _ in range(draw.randint(0, 3)):
        queue = JobQueue(study, space, BANKED, search, stages)
        rehearsal.run(queue, draw.randint(1, 12), lambda queue: check(queue, rehearsal))
    queue = JobQueue(study, space, BANKED, search, stages)
    assert rehearsal.run(queue, None, lambda queue: check(queue, rehearsal))
    ended(queue)
    budget = search.budget
    if budget and budget.seconds and not failing and budget.seconds * SPEED > 64 * 48 * (rehearsal.slots + 1):
        assert any(entry.done for entry in queue.account.entries.values())


@pytest.mark.parametrize("piece", range(PIECES))
def test_it_sums_up_and_no_budget_is_exceeded(piece: int) -> None:
    for seed in range(piece, SWEEPS, PIECES):
        go_through(seed)


def unlimited(seconds: float | None, images: int | None, trials: int) -> Search:
    budget = Budget(images=images, seconds=seconds) if seconds or images else None
    return Search(trials=trials, repeats=2, sampler="random", pruner="none", budget=budget)


@pytest.mark.parametrize("first", [{"seconds": 3.0, "images": None}, {"seconds": None, "images": 5000}])
def test_a_larger_budget_continues_what_was_cut(first: dict[str, float | int | None]) -> None:
    """In the end it is the sweep that would have been begun with it."""

    def sweep(*searches: Search) -> list[tuple[TrialState, dict[str, object]]]:
        study = optuna.create_study(sampler=sampler_for(SPACE, searches[-1]))
        rehearsal = Rehearsal(RehearsedStages(), slots=2)
        for search in searches:
            assert rehearsal.run(JobQueue(study, SPACE, BANKED, search, rehearsal.stages))
        return [(trial.state, trial.user_attrs["changes"]) for trial in study.trials]

    small, large = unlimited(trials=4, **first), unlimited(None, None, 4)  # type: ignore[arg-type]
    assert TrialState.RUNNING in [state for state, _ in sweep(small)]
    assert sweep(small, large) == sweep(large)


def test_what_a_run_found_is_its_beginning() -> None:
    """Three stages of 100: seen 250, of which it trained the last 120."""
    entry = Entry({"a": 100, "b": 100, "c": 100}, 300, {"samples": 250, "trained": 120, "device_seconds": 1})
    assert entry.by_stage() == {"a": (100, 0), "b": (100, 70), "c": (50, 50)}


def test_time_for_one_run_is_kept_for_the_nearest() -> None:
    """Two runs of 1,000 images at 100 a second, 12 s in all: both at 400 have spent 8 s, and one needs 6 more."""
    account = Account(Budget(seconds=12.0))
    runs = [Entry({"s": 1000}, 1000, open=True) for _ in range(2)]
    account.entries = {(0, 0): runs[0], (1, 0): runs[1]}
    for run, seen in zip(runs, (200.0, 100.0), strict=True):
        account.spend(run, {"samples": seen, "trained": seen, "device_seconds": seen / 100})
    assert not account.must_end(runs[0], runs)
    assert account.must_end(runs[1], runs)  # 9 s are left, and 8 s of two runs would be 16
    account.end(runs[1], False)
    account.spend(runs[0], {"samples": 999.0, "trained": 999.0, "device_seconds": 9.99})
    assert not account.must_end(runs[0], runs[:1])
