"""A student as MLflow's logged model, with all that serving it elsewhere needs: this package and pinned versions."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

BEST = "best"
_PACKAGE = Path(__file__).parents[1]


def pinned_requirements() -> list[str]:
    """What the package itself needs, at the versions that are installed here; not the package, which no index has."""
    needed = ["mlflow", "torch", "torchvision", "numpy", "safetensors", "pillow", "scikit-learn"]
    try:
        own = importlib.metadata.requires("tract-ray") or []
        needed = [
            "mlflow",
            *(re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0] for line in own if "extra ==" not in line),
        ]
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        pass
    found = []
    for name in needed:
        try:  # without a local part like +cpu, which no index has
            found.append(f"{name}=={importlib.metadata.version(name).partition('+')[0]}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def log_student(mlflow: Any, client: Any, uri: str, run_id: str, student: Path, name: str) -> None:
    """Log the model folder with MLflow's `pyfunc` from code, nothing pickled, and register it as the best of `name`."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    from tract_ray.tracking import model_from_code

    inputs = [ColSpec("long", name, required=name == "seed") for name in ("seed", "count", "label", "steps")]
    signature = ModelSignature(
        inputs=Schema(inputs), params=ParamSchema([ParamSpec("format", "string", default="arrays")])
    )
    previous = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        with (
            tempfile.TemporaryDirectory() as scratch,
            mlflow.start_run(run_id=run_id, log_system_metrics=False),
            warnings.catch_warnings(),
        ):
            requirements, code = Path(scratch) / "requirements.txt", Path(scratch) / "tract_ray"
            requirements.write_text("\n".join(pinned_requirements()) + "\n")
            shutil.copytree(_PACKAGE, code, ignore=shutil.ignore_patterns("__pycache__"))
            warnings.simplefilter("ignore", UserWarning)  # it misses type hints and an example; there is a signature
            logged = mlflow.pyfunc.log_model(
                name="student",
                python_model=model_from_code.__file__,
                artifacts={"student": str(student)},
                code_paths=[str(code)],
                pip_requirements=str(requirements),
                signature=signature,
            )
            _register(client, name, str(logged.model_id), run_id)
    finally:
        mlflow.set_tracking_uri(previous)


def _register(client: Any, name: str, model_id: str, run_id: str) -> None:
    """A version of the registered model `name`, to which the alias `best` is moved: `models:/NAME@best`."""
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(name, f"models:/{model_id}", run_id=run_id, model_id=model_id)
    client.set_registered_model_alias(name, BEST, version.version)
