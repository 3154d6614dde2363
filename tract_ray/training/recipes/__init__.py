"""Settings of training by name: the papers', one file a family and each number with its source, and our own."""

from tract_ray.training.recipes.btd import BTD
from tract_ray.training.recipes.by_data import (
    PAPER_TEACHER,
    SMALL_METHODS,
    SMALL_STUDENT,
    SMALL_TEACHER,
    is_small,
    method_recipe,
    teacher_recipe,
)
from tract_ray.training.recipes.moment_matching import MOMENT_MATCHING
from tract_ray.training.recipes.ours import OURS
from tract_ray.training.recipes.recipe import Recipe, find_recipe, recipes
from tract_ray.training.recipes.teachers import TEACHERS
from tract_ray.training.recipes.tract import TRACT

recipes.update({recipe.name: recipe for recipe in (*TRACT, *BTD, *MOMENT_MATCHING, *TEACHERS, *OURS)})

__all__ = [
    "PAPER_TEACHER",
    "SMALL_METHODS",
    "SMALL_STUDENT",
    "SMALL_TEACHER",
    "Recipe",
    "find_recipe",
    "is_small",
    "method_recipe",
    "recipes",
    "teacher_recipe",
]
