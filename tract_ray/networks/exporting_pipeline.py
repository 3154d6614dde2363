"""A folder that diffusers samples from, of any student: its sampler's graph and a pipeline that needs torch alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from tract_ray.files import atomic_folder
from tract_ray.networks.diffusers_unet import import_diffusers_library
from tract_ray.networks.exporting_graph import LARGEST_BATCH, Sampler, export_torch

CARRIED = Path(__file__).parent / "carried"
CODE = """from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
images = pipeline(batch_size=16{labels}).images"""


def export_pipeline(
    sampler: Sampler, shape: tuple[int, int, int], num_classes: int, folder: Path, about: Mapping[str, str]
) -> None:
    """Write the folder, whole or not at all."""
    library = import_diffusers_library("format: diffusers", "export")
    with atomic_folder(folder) as new:
        student = new / "student"
        student.mkdir()
        export_torch(sampler, shape, num_classes, student / "sampler.pt2", about)
        config = {
            "_class_name": "StudentGraph",
            "_diffusers_version": library.__version__,
            "shape": list(shape),
            "num_classes": num_classes,
            "steps": sampler.steps,
            "added_noises": max(0, sampler.added),
            "largest_batch": LARGEST_BATCH,
        }
        (student / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        index = {
            "_class_name": "TractPipeline",
            "_diffusers_version": library.__version__,
            "student": ["student_graph", "StudentGraph"],
        }
        (new / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        shutil.copy(CARRIED / "student_graph.py", student)
        shutil.copy(CARRIED / "pipeline.py", new)
