"""Averages stored while a phase is trained, for `reconstruction.py` to make others from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from tract_ray.config import InputError, require
from tract_ray.distillation.bank import AverageBank
from tract_ray.distillation.reconstruction import Snapshot, coefficients, combine, predicted_error
from tract_ray.files import read_json, read_safetensors, write_json, write_safetensors


class AverageFolder:
    """Stored averages, one safetensors file each; `index.json` names those of a phase once the last one is there.

    An interrupted run writes again, with the same content, what it stored since its last checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, snapshot: Snapshot, tensors: Mapping[str, Tensor]) -> None:
        about = json.dumps({"mu": snapshot.mu, "step": snapshot.step})
        write_safetensors(self._file(snapshot), tensors, {"snapshot": about})

    def complete(self, snapshots: Sequence[Snapshot]) -> None:
        """Say that these were all stored."""
        index = {"snapshots": [{"mu": s.mu, "step": s.step} for s in snapshots]}
        write_json(self.folder / "index.json", index)

    def snapshots(self) -> list[Snapshot]:
        """What is stored, in the order of the steps. `InputError` where there is nothing whole."""
        file = self.folder / "index.json"
        require(file.exists(), "averages", f"{self.folder} holds none; train with mu_i_snapshots=4 to store them")
        try:
            return [Snapshot(s["step"], s["mu"]) for s in read_json(file, "averages")["snapshots"]]
        except (KeyError, TypeError) as error:
            raise InputError(f"averages: {file} is damaged ({type(error).__name__}: {error})") from None

    def reconstruct(self, mu: float, step: int | None = None) -> tuple[dict[str, Tensor], float]:
        """The average at `mu` after `step` updates (default: the last), and its predicted error; one file at a time."""
        stored = self.snapshots()
        step = max(s.step for s in stored) if step is None else step
        usable = [s for s in stored if s.step <= step]
        weights, error = coefficients(usable, mu, step), predicted_error(usable, mu, step)
        used = [(weight, s) for weight, s in zip(weights, usable, strict=True) if weight]
        files = (read_safetensors(self._file(s), "averages") for _, s in used)
        return combine((weight for weight, _ in used), files), error

    def _file(self, snapshot: Snapshot) -> Path:
        return self.folder / f"step-{snapshot.step:09d}-mu-{snapshot.mu:.10f}.safetensors"


class AverageRecorder:
    """The averages that a phase carries for `plan`; mu 0 needs none, it is the network itself."""

    def __init__(self, network: nn.Module, plan: Sequence[Snapshot]) -> None:
        self.plan = tuple(sorted(plan))
        self.members = AverageBank(network, sorted({s.mu for s in plan if s.mu}))
        self._due = {snapshot.step for snapshot in self.plan}

    def store(self, network: nn.Module, folder: AverageFolder) -> None:
        """Write what the plan wants at this step; the members have been updated with `network`."""
        step = self.members.updates
        if step not in self._due:
            return
        for snapshot in self.plan:
            if snapshot.step == step:
                source = self.members[snapshot.mu].network if snapshot.mu else network
                folder.write(snapshot, source.state_dict())
        if step == self.plan[-1].step:
            folder.complete(self.plan)
