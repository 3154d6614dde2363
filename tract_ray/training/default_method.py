"""Which method distils a teacher where none is named."""

from __future__ import annotations

from pathlib import Path

from tract_ray.files import read_json
from tract_ray.training.run_config import TeacherConfig


def default_method(teacher: TeacherConfig) -> str:
    """`tract`; for a teacher of EDM's process `tract_edm`, with Heun steps of the teacher and its own settings."""
    if teacher.path is None:
        schedule = teacher.training.schedule
    else:
        schedule = read_json(Path(teacher.path) / "config.json", "teacher").get("schedule", "")
    return "tract_edm" if schedule == "ve_karras" else "tract"
