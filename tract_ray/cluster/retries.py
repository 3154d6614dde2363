"""What a machine failed is begun again: after growing waits, and elsewhere where there is another node."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import ray

from tract_ray.search.jobs import Job

FIRST_SECONDS, LONGEST_SECONDS = 1.0, 60.0


def wait_before(retry: int) -> float:
    """Seconds before the retry of that number, from 1: 1, 2, 4 … and at most a minute."""
    return min(FIRST_SECONDS * 2.0 ** (retry - 1), LONGEST_SECONDS)


@dataclass(frozen=True)
class Again:
    """A run that is to be begun again at `due`, by `time.monotonic`, and not at the address `failed_at`."""

    job: Job
    due: float
    failed_at: str


class Retries:
    """The runs that wait for being begun again, each at most `most` times."""

    def __init__(self, most: int) -> None:
        self.most, self.waiting, self.counts = most, list[Again](), Counter[str]()

    def add(self, job: Job, failed_at: str) -> float | None:
        """Let a run wait; returns for how many seconds, or None where it has been begun often enough."""
        if self.counts[job.name] >= self.most:
            return None
        self.counts[job.name] += 1
        seconds = wait_before(self.counts[job.name])
        self.waiting.append(Again(job, time.monotonic() + seconds, failed_at))
        return seconds

    def take(self) -> Again | None:
        """A run whose wait is over."""
        due = next((again for again in self.waiting if again.due <= time.monotonic()), None)
        if due:
            self.waiting.remove(due)
        return due


def node_to_avoid(address: str, cpus: float, gpus: float) -> str:
    """The id of the living node at `address`, "" where no other one could take a trial of so many CPUs and GPUs."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    failed = next((node["NodeID"] for node in alive if address and node["NodeManagerAddress"] == address), "")
    fit = [n for n in alive if n["Resources"].get("CPU", 0) >= cpus and n["Resources"].get("GPU", 0) >= gpus]
    return failed if any(node["NodeID"] != failed for node in fit) else ""
