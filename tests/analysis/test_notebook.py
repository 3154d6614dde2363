"""The notebook, executed on the record of a real sweep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
SWEEP = "--trials 2 --samples 640 --batch 32 --teacher-samples 1280 --evaluation-samples 100 --ray-address local"


@pytest.mark.cluster
def test_the_notebook_draws_the_newest_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "sweeps/mu_search.py", *SWEEP.split(), "--storage", str(tmp_path / "runs")]
    done = subprocess.run([*command, "--mlflow-uri", uri], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(ROOT / "notebooks" / "mu_search.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit the notebook without outputs"
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 4  # mu_s, mu_i, history, samples
    table = next(o["data"]["text/plain"] for o in outputs if "text/html" in o.get("data", {}))
    assert "trial-0000" in table
    assert "trial-0001" in table
