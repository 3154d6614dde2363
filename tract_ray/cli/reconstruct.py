"""The command that makes a student at another mu_i of a run that is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tract_ray.config import require
from tract_ray.distillation import AverageFolder
from tract_ray.training import load_model
from tract_ray.training.model import check_free

app = typer.Typer()

POOR = 0.05


@app.command()
def reconstruct(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run that stored averages (mu_i_snapshots).")],
    mu_i: Annotated[float, typer.Option(help="Inference average to make, in [0, 1).")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else to standard output.")] = False,
) -> None:
    """Write the student at any mu_i, from the averages that its run stored in its last phase; nothing is trained."""
    run, out = run.expanduser(), out.expanduser()
    check_free(out)
    require(0 <= mu_i < 1, "mu_i", f"must be in [0, 1), got {mu_i}")
    require(out.resolve() != (run / "student").resolve(), "out", f"{out} is the run's own student; choose another")
    student = load_model(run / "student", "run")
    weights, error = AverageFolder(run / "averages").reconstruct(mu_i)
    student.denoiser.module.load_state_dict(weights)
    kept = {name: value for name, value in student.about.items() if name in ("config", "teacher")}
    student.about = {**kept, "mu_i": mu_i, "reconstructed": {"run": str(run), "predicted_error": error}}
    student.save(out)
    if as_json:
        print(json.dumps({"student": str(out), "mu_i": mu_i, "predicted_error": error}, indent=2))
        return
    print(f"student: {out}")
    print(f"mu_i {mu_i:.10g}: its profile differs by {error:.2%} from that of the trained average")
    if error > POOR:
        print("note: that is much; the stored averages do not reach this mu_i, train it as mu_i or with more snapshots")
