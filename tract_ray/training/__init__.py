"""One run: its configuration, the loop, checkpoints and exact resume, model folders, Ray Train workers."""

from tract_ray.training.distill import run_distillation
from tract_ray.training.keys import teacher_folder
from tract_ray.training.loop import train
from tract_ray.training.model import Model, load_model
from tract_ray.training.paths import Paths
from tract_ray.training.result import RunResult
from tract_ray.training.run_checks import check_run
from tract_ray.training.run_config import EvaluationConfig, NetworkConfig, RunConfig, TeacherConfig, run_parameters
from tract_ray.training.teacher import Score, find_teacher, reference_steps, score_teacher, train_teacher
from tract_ray.training.worker import Worker, default_device

__all__ = [
    "EvaluationConfig",
    "Model",
    "NetworkConfig",
    "Paths",
    "RunConfig",
    "RunResult",
    "Score",
    "TeacherConfig",
    "Worker",
    "check_run",
    "default_device",
    "find_teacher",
    "load_model",
    "reference_steps",
    "run_distillation",
    "run_parameters",
    "score_teacher",
    "teacher_folder",
    "train",
    "train_teacher",
]
