"""`tract-ray serve` on a real port: the images of `tract-ray sample`, refusals and an end in one line."""

from __future__ import annotations

import base64
import io
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import refusal, run
from PIL import Image
from services import end, start, wait_until

from tract_ray.data.dataset import to_uint8
from tract_ray.diffusion import CosineVP, Denoiser
from tract_ray.evaluation import fixed_noise
from tract_ray.networks import build_network
from tract_ray.training import Model, NetworkConfig

pytest.importorskip("uvicorn")


@dataclass
class Served:
    """A student and the address that it is served at."""

    student: Model
    folder: Path
    address: str
    log: Path
    process: subprocess.Popen[bytes]

    def ask(self, path: str, body: Any = None, host: str = "") -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers of an answer."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, content, {"Content-Type": "application/json"})
        if host:
            request.add_header("Host", host)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, reply.read(), dict(reply.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    network = build_network("mlp_8x8_small", num_classes=3, seed=1).eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for weight in network.parameters():  # a new network answers zero
            weight.normal_(0, 0.1)
    config = NetworkConfig(name="mlp_8x8_small")
    student = Model(Denoiser(network, CosineVP(), "v"), config, (1, 8, 8), 1, 3, [0.0, 1.0], dataset="digits")
    folder = student.save(tmp_path_factory.mktemp("served") / "student")
    log = folder.with_name("log")
    command = [sys.executable, "-m", "tract_ray.cli", "serve", folder, "--port", "0", "--device", "cpu"]
    process = start(command, log)
    try:
        wait_until(lambda: "http://" in log.read_text(), "it does not serve", 60, log, process)
        address = next(word for word in log.read_text().split() if word.startswith("http://"))
        yield Served(student, folder, address, log, process)
    finally:
        end(process)


def test_its_picture_is_the_one_of_the_command(served: Served, tmp_path: Path) -> None:
    for query, options in (("", []), ("&label=2&columns=4", ["--label", 2, "--columns", 4])):
        run("sample", served.folder, "--out", tmp_path / "own.png", "--count", 12, "--seed", 7, *options)
        status, content, headers = served.ask(f"/samples.png?seed=7&count=12{query}")
        assert (status, headers["content-type"], headers["x-nfe"]) == (200, "image/png", "1")
        assert float(headers["x-seconds"]) > 0
        with Image.open(tmp_path / "own.png") as own, Image.open(io.BytesIO(content)) as drawn:
            np.testing.assert_array_equal(np.asarray(drawn), np.asarray(own))


def test_json(served: Served) -> None:
    expected = served.student.sample(fixed_noise(3, 0, 4, (1, 8, 8)), torch.ones(4, dtype=torch.int64))
    asked = {"seed": 3, "count": 4, "label": 1, "steps": 1}
    status, content, _ = served.ask("/sample", {**asked, "format": "arrays"})
    answer = json.loads(content)
    assert (status, answer["shape"], answer["steps"], answer["sampler"]) == (200, [4, 1, 8, 8], 1, "ddim")
    np.testing.assert_allclose(answer["images"], expected.numpy(), atol=1e-6)
    pictures = json.loads(served.ask("/sample", asked)[1])["images"]
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))[..., 0] for text in pictures]
    np.testing.assert_array_equal(np.stack(pixels), to_uint8(expected)[:, 0].numpy())
    about = json.loads(served.ask("/about")[1])
    assert (about["name"], about["classes"], about["steps"], about["distance"]) == ("student", 3, 1, None)
    status, page, _ = served.ask("/")
    assert (status, b"https://" in page) == (200, False)  # nothing is fetched from elsewhere


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"count": 0}, "count: must be from 1 to 1,024, got 0"),
        ({"count": 5000}, "count: must be from 1 to 1,024, got 5000"),
        ({"label": 3}, "label: must be in 0..2, got 3"),
        ({"steps": 8}, "steps: this student was distilled for 1 step(s), not 8"),
        ({"seed": -1}, "seed: must be from 0 to 4294967295, got -1"),
        ({"seed": "x"}, "seed: input should be a valid integer, unable to parse string as an integer"),
        ({"cuont": 3}, "cuont: extra inputs are not permitted"),
        ({"format": "gif"}, "format: input should be 'png' or 'arrays'"),
        ([], "request: "),
    ],
)
def test_a_bad_request_is_one_line(served: Served, asked: Any, line: str) -> None:
    status, content, _ = served.ask("/sample", asked)
    said = json.loads(content)
    assert status == 400
    assert list(said) == ["error"]
    assert said["error"].startswith(line)
    assert "\n" not in said["error"]


def test_other_sites_are_not_answered(served: Served) -> None:
    assert served.ask("/about", host="evil.example")[0] == 400
    assert served.ask("/nothing")[0] == 404


def test_what_cannot_be_served_is_said_in_one_line(served: Served, tmp_path: Path) -> None:
    taken = served.address.rpartition(":")[2]
    assert refusal("serve", served.folder, "--port", taken).startswith(f"port: {taken} cannot be had (")
    assert refusal("serve", served.folder, "--port", 70_000).startswith("port: must be from 0 to 65535")
    assert refusal("serve", served.folder, "--steps", 8).startswith("steps: this student was distilled for 1")
    assert refusal("serve", tmp_path / "none").startswith("checkpoint: ")


def test_it_listens_on_loopback_alone_and_ends_with_a_line(served: Served) -> None:
    """The last test of this file: it ends what the others ask."""
    port = int(served.address.rpartition(":")[2])
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", port))
    drawn = 2 * 12 + 2 * 4
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(timeout=20) == 0
    lines = served.log.read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{served.folder}: 1 ddim step(s), 1 network call(s) per image, at http://127.0.0.1:")
    assert lines[1] == f"stopped; {drawn} images were drawn"
