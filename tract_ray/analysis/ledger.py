"""The ledger: what a sweep has cost, and what it would have cost to train every row by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console

from tract_ray.analysis.rows import TrialRow
from tract_ray.terminal import duration, print_table


@dataclass(frozen=True)
class Ledger:
    """Training images. `naive` is the sum of all rows trained whole, each seed by itself; `trained` what was trained.

    The difference is what `stopped` trials did not see, and what others had trained already (`shared`). `bank` is
    not part of it: the images that the further mu_i which were scored would cost as runs of their own.
    """

    naive: int
    trained: int
    stopped: int
    shared: int
    bank: int
    device_seconds: float
    wall_seconds: float = 0.0
    slots: int = 1

    @property
    def overhead(self) -> float:
        """Time on the clock against the trials' device time, spread evenly over the slots."""
        return self.wall_seconds * self.slots / self.device_seconds if self.device_seconds else 0.0

    @property
    def fraction(self) -> float:
        """Trained images of the naive sum."""
        return self.trained / max(self.naive, 1)

    def metrics(self) -> dict[str, float]:
        """For MLflow."""
        return {f"ledger/{name}": float(value) for name, value in asdict(self).items()} | {
            "ledger/fraction": self.fraction,
            "ledger/overhead": self.overhead,
        }


def ledger_of(
    rows: Sequence[TrialRow], repeats: int, totals: Sequence[int], wall_seconds: float = 0.0, slots: int = 1
) -> Ledger:
    """The ledger of a sweep whose row `k` would train `totals[k]` images a seed, `repeats` seeds."""
    naive = seen = trained = bank = 0
    seconds = 0.0
    for row, total in zip(rows, totals, strict=True):
        naive += total * repeats
        seen += int(sum(cost["samples"] for cost in row.costs))
        trained += int(sum(cost["trained"] for cost in row.costs))
        seconds += sum(cost["device_seconds"] for cost in row.costs)
        bank += max(len(row.distances) - 1, 0) * total * len(row.costs)
    return Ledger(naive, trained, naive - seen, seen - trained, bank, seconds, wall_seconds, slots)


def show_ledger(ledger: Ledger, console: Console) -> None:
    """The table a person reads."""
    naive = max(ledger.naive, 1)
    parts = {
        "every row by itself": ledger.naive,
        "not seen: stopped early": -ledger.stopped,
        "not trained again: shared stages": -ledger.shared,
        "trained": ledger.trained,
    }
    rows = [{"": name, "images": f"{n:,}", "of the sum": f"{n / naive:.0%}"} for name, n in parts.items()]
    print_table(console, "what it cost", rows, right=("images", "of the sum"))
    if ledger.device_seconds:
        wall = f", {duration(ledger.wall_seconds)} on the clock" if ledger.wall_seconds else ""
        wall += f": {ledger.overhead:.2f} times their share of {ledger.slots} slots" if ledger.slots > 1 else ""
        console.print(f"device time of the trials {duration(ledger.device_seconds)}{wall}")
    if ledger.bank:
        console.print(f"mu_i bank: further values scored, {ledger.bank:,} images as runs of their own")
