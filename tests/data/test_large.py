"""More images than one would keep in memory: they are decoded once into a file that every process maps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

COUNT, SIZE, MEGABYTE = 200_000, 64, 1024
PROGRAM = """
import json, sys, threading, time
from pathlib import Path
import torch
from tract_ray.data import Dataset, load_dataset
from tract_ray.distillation import Denoising, DenoisingConfig
from tract_ray.networks import build_network
from tract_ray.training import train

most = 0
def watch():  # kilobytes that this process alone holds; pages of a mapped file are the system's to take back
    global most
    while True:
        line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
        most = max(most, int(line.split()[1]))
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()

torch.set_num_threads(1)
name, folder = sys.argv[1:]
few = Dataset("few", torch.zeros(64, 3, 64, 64, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64), 1)
data = load_dataset(name) if name != "few" else few
network = build_network("unet_8x8", data.shape, options={"channels": 16}, seed=0)
method = Denoising(DenoisingConfig(samples=20 * 16, batch=16), None, network)
train(method, data, seed=0, key="large", folder=Path(folder))
print(json.dumps({"images": len(data), "fingerprint": data.fingerprint, "most": most}))
"""


@pytest.mark.slow
def test_200_000_images_need_less_than_a_gigabyte(tmp_path: Path) -> None:
    rng, head = np.random.default_rng(0), f"P6 {SIZE} {SIZE} 255\n".encode()
    noise = rng.integers(0, 256, (1 << 20) + SIZE * SIZE * 3, dtype=np.uint8).tobytes()
    with ZipFile(tmp_path / "large.zip", "w") as archive:
        for i in range(COUNT):
            start = (i * 7919) % (1 << 20)
            archive.writestr(f"{i:06d}.ppm", head + noise[start : start + SIZE * SIZE * 3])
    env = {**os.environ, "TRACT_RAY_DATA_CACHE": str(tmp_path / "cache")}
    said = []
    for number, name in enumerate(("few", *2 * [f"folder:{tmp_path / 'large.zip'}@{SIZE}"])):
        program = [sys.executable, "-c", PROGRAM, name, str(tmp_path / str(number))]
        said.append(json.loads(subprocess.check_output(program, env=env).splitlines()[-1]))
    few, decoded, mapped = said
    for found in (decoded, mapped):
        assert found["images"] == COUNT
        assert found["most"] - few["most"] < 1024 * MEGABYTE, (found, few)
    assert decoded["fingerprint"] == mapped["fingerprint"]
    pixels = COUNT * 3 * SIZE * SIZE
    assert pixels > 2 << 30  # they are not in memory: those alone would be more than that
