"""What goes with an exported model says where it comes from, and its three lines load it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tract_ray.diffusion import Denoiser, build_schedule
from tract_ray.training import Model, NetworkConfig
from tract_ray.training.model_card import provenance_of, write_card
from tract_ray.training.run_config import build_for


@pytest.fixture
def student() -> Model:
    config = NetworkConfig(name="mlp_8x8", options={"width": 16, "blocks": 1, "embedding": 16})
    network = build_for(config, (1, 8, 8), "v", 3, seed=0).eval()
    about = {
        "config": {"method": {"kind": "tract", "samples": 128_000}, "evaluation": {"samples": 4000}},
        "teacher": "/somewhere/teachers/digits-mlp",
        "metric": "fid_digits",
        "distance": 4.96,
        "mu_i": 0.99,
    }
    denoiser = Denoiser(network, build_schedule("vp_cosine"), "v")
    return Model(denoiser, config, (1, 8, 8), 1, 3, [0.0, 1.0], dataset="digits", about=about)


def test_provenance(student: Model) -> None:
    known = provenance_of(student, 1)
    assert known["teacher"] == "digits-mlp"  # no folder of somebody's machine
    assert (known["method"], known["samples"], known["distance"]) == ("tract", "128000", "4.96")
    assert (known["metric"], known["distance_of"], known["times"]) == ("fid_digits", "4000", "[0.0, 1.0]")
    assert "teacher_sha256" not in known


def test_the_card(tmp_path: Path, student: Model) -> None:
    out = tmp_path / "student.onnx"
    out.touch()
    text = write_card(student, out, "onnx", 1, "cc-by-4.0").read_text()
    for part in (
        "license: cc-by-4.0",
        "| Teacher | digits-mlp |",
        "| Method | tract, 128,000 training images |",
        "| Data | digits |",
        "| Distance | 4.960 (fid_digits, 4000 images) |",
        "![samples](samples.png)",
        '"labels": numpy.arange(16) % 3',
    ):
        assert part in text
    assert Image.open(tmp_path / "samples.png").size[0] > 100


def test_a_foreign_readme_stays(tmp_path: Path, student: Model) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "samples.png").write_text("mine, too")
    out = tmp_path / "student.pt2"
    out.touch()
    assert write_card(student, out, "torch_export", 1) == tmp_path / "student.README.md"
    assert ((tmp_path / "README.md").read_text(), (tmp_path / "samples.png").read_text()) == ("mine", "mine, too")
    assert "](student.samples.png)" in (tmp_path / "student.README.md").read_text()


@pytest.mark.parametrize("format", ["onnx", "diffusers"])
def test_its_three_lines_run(tmp_path: Path, student: Model, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    pytest.importorskip("onnxruntime" if format == "onnx" else "diffusers")
    pytest.importorskip("onnxscript")
    from tract_ray.networks.exporting import export_network

    out = tmp_path / ("student.onnx" if format == "onnx" else "student")
    told: dict[str, Any] = {"times": student.own_times(), "num_classes": 3}
    export_network(student.denoiser, (1, 8, 8), out, format, **told)
    card = write_card(student, out, format, 1).read_text()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tract_ray", None)  # whoever gets the file need not have it
    names: dict[str, Any] = {"folder": str(out)}
    exec(card.split("```python\n")[1].split("```")[0], names)
    assert len(names["images"]) == 16
