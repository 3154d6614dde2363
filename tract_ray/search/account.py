"""The account of a sweep: what its runs were promised, what they have spent, and what they found trained already.

Budget, ledger, progress, dry run and report all read it, so they cannot disagree. Everything is counted in training
images, and in device seconds beside them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import fsum

from tract_ray.search.budget import Budget

COST = ("samples", "trained", "device_seconds")
KINDS = ("training", "scoring", "loading", "start", "waiting", "references")  # of device seconds


@dataclass
class Entry:
    """One run: a seed of a trial.

    `stages` are its images by the stage's key, in order; `missing` are those of stages that nobody had trained when
    that was last looked up, `begun` what it had trained by then. `cost` is what it has seen (`samples`) and `trained`
    and its `device_seconds`, of which `kinds` tells what they went to, as far as it is known. An `open` run may still
    train; one that is `done` came to its end.
    """

    stages: dict[str, int]
    missing: int
    cost: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COST, 0.0))
    kinds: dict[str, float] = field(default_factory=dict)
    begun: float = 0.0
    open: bool = False
    done: bool = False

    @property
    def whole(self) -> int:
        """Images of the run from its first to its last."""
        return sum(self.stages.values())

    @property
    def ahead(self) -> int:
        """Images that the run has before it."""
        return max(0, self.whole - int(self.cost["samples"]))

    @property
    def wanted(self) -> int:
        """Images that it may have to train: what nobody has trained, as far as it is before it."""
        return max(0, min(self.ahead, self.missing - int(self.cost["trained"] - self.begun)))

    @property
    def promised(self) -> int:
        """Images that it may still train."""
        return self.wanted if self.open else 0

    def look_up(self, missing: int) -> None:
        """Count again what others have not trained for it: `missing` images."""
        self.missing, self.begun = missing, self.cost["trained"]

    def by_stage(self) -> dict[str, tuple[int, int]]:
        """Images seen and trained of each stage: what a run finds is its beginning, as keys hold their parents'."""
        seen = int(self.cost["samples"])
        first = seen - int(self.cost["trained"])  # before that, it trained nothing itself
        ends = accumulate(self.stages.values())
        return {
            key: (max(0, min(seen, end) - (end - size)), max(0, min(seen, end) - max(first, end - size)))
            for (key, size), end in zip(self.stages.items(), ends, strict=True)
        }


class Account:
    """The entries of all runs by (trial, seed), and whether the `budget` has room for more.

    `failed` are the numbers of the trials that ended before their time and were not stopped.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget
        self.entries: dict[tuple[int, int], Entry] = {}
        self.failed: set[int] = set()

    def total(self, cost: str) -> float:
        """What all runs have had of one of `COST`."""
        return fsum(entry.cost[cost] for entry in self.entries.values())

    @property
    def promised(self) -> int:
        """Images that open runs may still train."""
        return sum(entry.promised for entry in self.entries.values())

    @property
    def shared(self) -> int:
        """Images that runs saw and did not train."""
        return int(self.total("samples") - self.total("trained"))

    @property
    def lost(self) -> int:
        """Images that the failed trials did not see."""
        return sum(entry.ahead for (trial, _), entry in self.entries.items() if trial in self.failed)

    def of(self, trial: int) -> list[Entry]:
        """A trial's seeds, first to last."""
        return [entry for (number, _), entry in sorted(self.entries.items(), key=lambda e: e[0]) if number == trial]

    def by_stage(self) -> dict[str, tuple[int, int]]:
        """Images seen and trained of each stage by all runs together."""
        sums: dict[str, tuple[int, int]] = {}
        for entry in self.entries.values():
            for key, (seen, trained) in entry.by_stage().items():
                before = sums.get(key, (0, 0))
                sums[key] = before[0] + seen, before[1] + trained
        return sums

    def kinds(self) -> dict[str, float]:
        """Device seconds by what they went to, as far as it is known."""
        return {kind: sum(entry.kinds.get(kind, 0.0) for entry in self.entries.values()) for kind in KINDS}

    # What may begin, and what must end

    def promise(self, trial: int, seeds: Sequence[Entry]) -> bool:
        """Enter all seeds of a trial, unless the budget has no room for what they may train; whether it had."""
        own = {(trial, repeat): entry for repeat, entry in enumerate(seeds)}
        others = sum(entry.promised for key, entry in self.entries.items() if key not in own)
        spent = sum(entry.cost["trained"] for entry in {**self.entries, **own}.values())
        more = sum(entry.wanted for entry in seeds)
        if self.budget and not self.budget.allows(int(spent) + others, self.total("device_seconds"), more):
            return False
        self.entries.update(own)
        for entry in seeds:
            entry.open = not entry.done
        return True

    def spend(self, entry: Entry, cost: Mapping[str, float]) -> None:
        """What a run has had up to now, all told."""
        entry.cost = {name: float(cost.get(name, 0.0)) for name in COST}
        entry.kinds = {kind: float(cost[kind]) for kind in KINDS if kind in cost}

    def end(self, entry: Entry, done: bool) -> None:
        """A run has ended, `done` if it came to its end: what it was promised beyond that is free again."""
        entry.open, entry.done = False, done

    def release(self, trial: int, running: Collection[int] = ()) -> None:
        """No more seeds of the trial begin: what those that are not `running` were promised is free again."""
        for (number, repeat), entry in self.entries.items():
            entry.open = entry.open and (number != trial or repeat in running)

    def forget(self, trial: int) -> None:
        """Strike out a trial of which no run has begun."""
        self.entries = {key: entry for key, entry in self.entries.items() if key[0] != trial}

    def exhausted(self) -> bool:
        """Whether nothing more may begin, and what runs must end. Images are promised beforehand: they never are."""
        return self.budget is not None and self.budget.exhausted(self.total("device_seconds"))

    def must_end(self, entry: Entry, running: Sequence[Entry]) -> bool:
        """Whether a run must end now: the time is spent, or what is left is needed to bring one run to its end.

        While no run has ended, the one that is nearest to it keeps the time that it needs, with what the others would
        spend beside it: a sweep whose budget has room for one run does not end without a result.
        """
        if self.exhausted():
            return True
        if self.budget is None or self.budget.seconds is None or any(e.done for e in self.entries.values()):
            return False
        nearest = min(running, key=lambda e: e.ahead)
        seconds, seen = nearest.cost["device_seconds"], nearest.cost["samples"]
        if entry is nearest or not seen:
            return False
        left = self.budget.seconds - self.total("device_seconds")
        return left <= len(running) * seconds / seen * nearest.ahead

    # How far it is

    def room(self) -> float:
        """Images that further runs may train; of a budget of time, about so many."""
        if self.budget is None:
            return float("inf")
        trained, seconds = self.total("trained"), self.total("device_seconds")
        if self.budget.images is not None:
            return max(0.0, self.budget.images - trained - self.promised)
        left = max(0.0, (self.budget.seconds or 0.0) - seconds)
        return max(0.0, left * trained / seconds - self.promised) if seconds else float("inf")

    def foreseen(self, further: int) -> int:
        """Images that all runs will have seen in the end, if those to come are of `further` images together."""
        known = sum(entry.ahead for entry in self.entries.values() if entry.open) + self.total("samples")
        return int(known + min(further, self.room()))
