"""A trial without training: it replays a learning curve, and takes as long as it is told.

The curves are a family fitted to TRACT 1024,32,1 on the digits (an MLP, 128,000 images): the self-teacher's rate, the
inference average and the number of images have the response that was measured there. Nothing here imports torch, or
what imports it: a simulated cluster has a process for every slot, all on one machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tract_ray.cluster.reports import tell_tune

METRIC = "fid_digits"
RATES = (1e-3, 1e-2, 0.1, 0.5, 0.9, 1.0)  # 1 - mu_s …
DISTANCES = (43.5, 12.5, 5.15, 4.85, 6.65, 32.0)  # … and the distance of the student, mean of the seeds
RESIDUALS = (1e-45, 4e-5, 1e-3, 7e-3, 0.37, 0.61)  # what mu_i leaves of the first weights: mu_i^steps …
FACTORS = (1.074, 1.0, 1.0, 1.008, 1.20, 1.28)  # … and the distance relative to the best one's
IMAGES, EXPONENT = 128_000, 0.175  # 4.85 after these, 4.00 after three times as many
FEWER_STEPS = 0.45  # the 32-step student of the first phase against the one-step student of the second
LATE, EARLY = 0.03, 0.06  # spread over seeds: at the end, and on the way, where fewer images are scored
PICTURE = 274  # pixels a side of a grid of 64 digits
Report = Callable[[dict[str, Any]], None]


class Mark(NamedTuple):
    """Where a run is scored: after `images`, when a phase has come as far as `progress`; `last` is the run's end."""

    images: int
    progress: float
    final_phase: bool
    last: bool


@dataclass(frozen=True)
class Replay:
    """What all trials of a simulated sweep share: when they are scored, and how long one takes on average."""

    marks: tuple[Mark, ...]
    seconds: float
    phase_steps: int
    lines: int = 25


def distances(run: Mapping[str, Any], mark: Mark, phase_steps: int) -> dict[float, float]:
    """Distance at `mark` by mu_i, a function of the configuration (which holds the seed) alone. `run` is plain data."""
    method = run["method"]
    level = _interpolate(1 - method["mu_s"], RATES, DISTANCES) * (method["samples"] / IMAGES) ** -EXPONENT
    level *= (1.0 if mark.final_phase else FEWER_STEPS) * mark.progress**-0.5
    random = _random(run, mark.images)
    level *= math.exp((LATE if mark.last else EARLY) * random.standard_normal())
    own = method["mu_i_residual"] ** (1 / phase_steps)
    bank = {float(mu) for mu in (*method["mu_i_bank"], own)}
    return {mu: level * _interpolate(mu**phase_steps, RESIDUALS, FACTORS) for mu in sorted(bank)}


def pace(run: Mapping[str, Any], seconds: float) -> float:
    """Seconds that this run takes if it is not stopped: within a fifth of `seconds`."""
    return seconds * float(_random(run, -1).uniform(0.8, 1.2))


def replay_trial(config: dict[str, Any], replay: Replay) -> None:
    """Tune's trainable, in place of `tract_ray.cluster.trial.run_trial`: the same files, the same reports."""
    replay_run(
        json.loads(config["run"]),
        Path(config["folder"]) / config["name"],
        replay,
        tell_tune,
    )


def replay_run(
    run: Mapping[str, Any], folder: Path, replay: Replay, report: Report, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Write the record line by line and report at each mark; a finished run reports its result at once."""
    file = folder / "result.json"
    if not file.is_file():
        result = _replay(run, folder, replay, report, sleep)
        new = file.with_suffix(".new")
        new.write_text(json.dumps(result, indent=2) + "\n")
        new.replace(file)
    result = json.loads(file.read_text())
    final = {key: result[key] for key in ("samples", "trained", "distance", "mu_i", "seconds", "device_seconds")}
    report({**final, "finished": True})


def _replay(
    run: Mapping[str, Any], folder: Path, replay: Replay, report: Report, sleep: Callable[[float], None]
) -> dict[str, Any]:
    whole, seconds = replay.marks[-1].images, pace(run, replay.seconds)
    at = {mark.images: mark for mark in replay.marks}
    events = sorted({*(round(whole * k / replay.lines) for k in range(1, replay.lines + 1)), *at})
    scores: dict[float, float] = {}
    seen = 0
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.jsonl").write_text("")
    for images in events:
        sleep(seconds * (images - seen) / whole)
        seen = images
        loss = {"loss": 0.1 / math.sqrt(images), "images_per_second": whole / seconds, "phase": 0}
        _append(folder, images, {"metrics": loss})
        if mark := at.get(images):
            scores = distances(run, mark, replay.phase_steps)
            best = min(scores, key=scores.__getitem__)
            bank = {f"{METRIC}/mu_i_{mu!r}": d for mu, d in scores.items()}
            _append(folder, images, {"metrics": {METRIC: scores[best], "mu_i_best": best, "steps": 1, **bank}})
            _append(folder, images, {"image": _picture(run, folder, images), "name": "samples"})
            if not mark.last:
                cost = {"trained": images, "device_seconds": seconds * images / whole}
                report({"samples": images, "distance": scores[best], "mu_i": best, "finished": False, **cost})
    # A `RunResult` as it is written; the class itself would bring torch into every process.
    return {
        "metric": METRIC,
        "distance": scores[best],
        "mu_i": best,
        "distances": {repr(mu): d for mu, d in scores.items()},
        "steps": 1,
        "samples": whole,
        "parameters": 0,
        "seconds_per_image": 0.0,
        "trained": whole,
        "seconds": seconds,
        "device_seconds": seconds,
        "student": str(folder / "student"),
        "key": "",
        "evaluation": {"replayed": True},
        "select": "best",
        "reported": {repr(best): scores[best]},
        "start": "",
        "data": "",
    }


def _append(folder: Path, images: int, content: Mapping[str, Any]) -> None:
    with (folder / "record.jsonl").open("a") as file:
        file.write(json.dumps({"samples": images, "time": time.time(), **content}) + "\n")


def _picture(run: Mapping[str, Any], folder: Path, images: int) -> str:
    """As large as a grid of digits, and about as hard to compress."""
    name = Path("images") / f"samples-{images:012d}.png"
    (folder / name).parent.mkdir(exist_ok=True)
    blocks = _random(run, images).integers(0, 256, (PICTURE // 4 + 1,) * 2, dtype=np.uint8)
    large = np.kron(blocks, np.ones((4, 4), np.uint8))[:PICTURE, :PICTURE]
    Image.fromarray(np.stack([large] * 3, axis=-1)).save(folder / name)
    return str(name)


def _interpolate(value: float, points: Sequence[float], values: Sequence[float]) -> float:
    """Linear between the logarithms of both."""
    return math.exp(np.interp(math.log(max(value, points[0])), np.log(points), np.log(values)))


def _random(run: Mapping[str, Any], salt: int) -> np.random.Generator:
    text = json.dumps([run, salt], sort_keys=True)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
