"""The ledger: what a sweep has cost, and what it would have cost to train every row by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rich.console import Console

from tract_ray.search.account import COST, Account
from tract_ray.terminal import duration, print_table


@dataclass(frozen=True)
class Ledger:
    """Training images. `naive` is the sum of all rows trained whole, each seed by itself; `trained` what was trained.

    The difference is what `stopped` and `failed` trials did not see, and what others had trained already (`shared`).
    `bank` is not part of it: the images that the further mu_i which were scored would cost as runs of their own.
    """

    naive: int
    trained: int
    stopped: int
    shared: int
    bank: int
    device_seconds: float
    wall_seconds: float = 0.0
    slots: int = 1
    failed: int = 0

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


def ledger_of(account: Account, bank: int = 0, wall_seconds: float = 0.0, slots: int = 1) -> Ledger:
    """The ledger of a sweep with this account; `bank` as in `Ledger`."""
    naive = sum(entry.whole for entry in account.entries.values())
    seen, trained, seconds = (account.total(name) for name in COST)
    lost = account.lost
    stopped = naive - int(seen) - lost
    return Ledger(naive, int(trained), stopped, account.shared, bank, seconds, wall_seconds, slots, lost)


def banked(account: Account, averages: Mapping[int, int]) -> int:
    """Images that further averages would cost as runs of their own, of trials with so many `averages` each."""
    return sum(
        max(averages.get(trial, 1) - 1, 0) * entry.whole
        for (trial, _), entry in account.entries.items()
        if entry.cost["samples"] > 0
    )


def show_ledger(ledger: Ledger, console: Console) -> None:
    """The table a person reads."""
    naive = max(ledger.naive, 1)
    parts = {
        "every row by itself": ledger.naive,
        "not seen: stopped early": -ledger.stopped,
        **({"not seen: failed": -ledger.failed} if ledger.failed else {}),
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
