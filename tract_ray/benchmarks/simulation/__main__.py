"""`python -m tract_ray.benchmarks.simulation`: the sweep, and one table of what its driver spent."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from tract_ray.benchmarks.simulation.machines import machine, mlflow_server
from tract_ray.benchmarks.simulation.measure import Measured, simulate
from tract_ray.cluster.simulated_nodes import simulated_cluster
from tract_ray.terminal import print_table, run_app


def main(
    nodes: Annotated[int, typer.Option(help="Ray nodes of one slot each.")] = 64,
    trials: Annotated[int, typer.Option(help="Trials of the sweep.")] = 1000,
    seconds: Annotated[float, typer.Option(help="Simulated seconds that an unstopped trial takes.")] = 24.0,
    folder: Annotated[
        Path | None, typer.Option(help="Where the sweep and MLflow's database go; default: thrown away.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Run a sweep of replayed trials on simulated nodes and print what it cost the driver."""
    console = Console(highlight=False, width=120)
    with ExitStack() as stack:
        where = folder.absolute() if folder else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        available = machine()[2]
        server = stack.enter_context(mlflow_server(where / "mlflow"))
        began = time.perf_counter()
        stack.enter_context(simulated_cluster(nodes))
        server.wait()
        started = time.perf_counter() - began
        log = stack.enter_context((where / "log.txt").open("w"))
        measured = simulate(nodes, trials, seconds, where, server, available, Console(file=log, width=120))
        wall = time.perf_counter() - began - started
        numbers = summary(measured, wall) | {"cluster start, s": round(started, 1)}
        print_table(console, f"{trials} trials on {nodes} nodes", [{"": k, "value": v} for k, v in numbers.items()])
        print_table(
            console, "calls: ms, median / p99 after a tenth and after eight tenths of the trials", calls(measured)
        )
        if json_file:
            json_file.write_text(json.dumps({"summary": numbers, "calls": calls(measured)}, indent=2) + "\n")


def summary(measured: Measured, wall: float) -> dict[str, float | int]:
    """The sweep as a whole."""
    watch, trials = measured.watch, len(measured.rows)
    (tune, tune_cpu), (idle, _) = watch.total("Tune"), watch.total("idle")
    (optuna, optuna_cpu), (mlflow, mlflow_cpu) = watch.total("Optuna"), watch.total("MLflow")
    return {
        "wall time, s": round(wall, 1),
        "of it search, s": round(measured.search, 1),
        "then shipping the rest, s": round(watch.total("close")[0], 1),
        "ideal search, s": round(measured.simulated / measured.nodes, 1),
        "utilisation of slots": round(measured.utilisation, 3),
        "utilisation, middle half": round(measured.steady_utilisation, 3),
        "trials finished": sum(row.status == "finished" for row in measured.rows),
        "trials stopped early": sum(row.status == "stopped early" for row in measured.rows),
        "driver CPU a trial, s": round(measured.driver_cpu / trials, 3),
        "event loop busy a trial, s": round((tune - idle) / trials, 3),
        "event loop CPU a trial, s": round(tune_cpu / trials, 3),
        "event loop busy, share of search": round((tune - idle) / measured.search, 3),
        "of it Optuna a trial, s": round(optuna / trials, 3),
        "Optuna CPU a trial, s": round(optuna_cpu / trials, 3),
        "shipper busy a trial, s": round(mlflow / trials, 3),
        "shipper CPU a trial, s": round(mlflow_cpu / trials, 3),
        "shipper busy, share of search": round(mlflow / measured.search, 3),
        "MLflow server CPU a trial, s": round(measured.server_cpu / trials, 3),
        "lines of the records": measured.written,
        "lines shipped": measured.lines,
        "line to MLflow, median s": round(float(np.median([lag for _, lag in measured.lags])), 1),
        "line to MLflow, longest s": round(max(lag for _, lag in measured.lags), 1),
        "machine's CPUs busy, share": round(measured.machine, 3),
        "driver memory before, MB": round(measured.memory_before),
        "driver memory peak, MB": round(measured.memory_peak),
        "memory of driver, server and nodes, MB": round(measured.memory_all),
    }


def calls(measured: Measured) -> list[Mapping[str, Any]]:
    """One row a timed method."""
    trials = len(measured.rows)
    early = range(trials // 10, max(trials // 5, trials // 10 + 1))
    late = range(8 * trials // 10, max(9 * trials // 10, 8 * trials // 10 + 1))
    return [
        {
            "": f"{group} {row.name}",
            "calls": row.calls,
            "early": _pair(row.early),
            "late": _pair(row.late),
            "sum, s": round(row.seconds, 1),
            "CPU, s": round(row.cpu, 1),
        }
        for group, row in measured.watch.rows(early, late)
    ]


def _pair(values: tuple[float, float]) -> str:
    return "-" if math.isnan(values[0]) else f"{values[0]:.1f} / {values[1]:.1f}"


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_app(app)
