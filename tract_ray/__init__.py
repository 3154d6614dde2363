"""Few-step diffusion samplers by transitive closure time-distillation, searched on a Ray cluster.

>>> import tract_ray as tr
>>> student = tr.distill("digits", method="tract", time_schedule=(8, 4, 1), **tiny)
>>> student.sample(16, steps=1).shape
torch.Size([16, 1, 8, 8])

The functions read as the commands of `tract-ray` do, which calls them. Nothing is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tract_ray.analysis.recorded_sweep import RecordedSweep as RecordedSweep
    from tract_ray.analysis.recorded_sweep import load_sweep as load_sweep
    from tract_ray.api.model import Model as Model
    from tract_ray.api.model import load_model as load_model
    from tract_ray.api.runs import distill as distill
    from tract_ray.api.runs import evaluate as evaluate
    from tract_ray.api.runs import train_teacher as train_teacher
    from tract_ray.config import InputError as InputError
    from tract_ray.sweep.start import sweep as sweep

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "Model",
    "RecordedSweep",
    "__version__",
    "distill",
    "evaluate",
    "load_model",
    "load_sweep",
    "sweep",
    "train_teacher",
]

_PLACES = {
    "InputError": "tract_ray.config",
    "Model": "tract_ray.api.model",
    "RecordedSweep": "tract_ray.analysis.recorded_sweep",
    "load_model": "tract_ray.api.model",
    "load_sweep": "tract_ray.analysis.recorded_sweep",
    "distill": "tract_ray.api.runs",
    "evaluate": "tract_ray.api.runs",
    "train_teacher": "tract_ray.api.runs",
}


def __getattr__(name: str) -> Any:
    if name == "sweep":
        return import_module("tract_ray.sweep")  # a room that can be called
    if name not in _PLACES:
        raise AttributeError(f"module 'tract_ray' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
