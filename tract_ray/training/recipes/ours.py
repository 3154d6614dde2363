"""Our own settings for small data, as recipes: what a command without one does."""

from __future__ import annotations

from tract_ray.training.recipes.by_data import method_recipe, teacher_recipe
from tract_ray.training.recipes.recipe import Recipe

OURS = (
    Recipe(
        name="digits",
        what="TRACT 1024,32,1 on digits with our own settings: the default of every command",
        teacher=teacher_recipe("digits"),
        method=method_recipe("tract", "digits"),
        measured_with="a small classifier's features (docs/results.md)",
        sources=dict.fromkeys(("samples", "batch", "lr"), "chosen on digits"),
        notes=("chosen for minutes on a laptop; no number of it compares with a paper's",),
    ),
)
