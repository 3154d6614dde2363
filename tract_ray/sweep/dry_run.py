"""`--dry-run`: what a sweep would do and about what it would cost, without any machine."""

from __future__ import annotations

import optuna
import torch
from rich.console import Console

from tract_ray.analysis.ledger import Ledger, banked, ledger_of, show_ledger
from tract_ray.search.jobs import JobQueue
from tract_ray.search.rehearsal import Rehearsal, RehearsedStages, by_chance
from tract_ray.search.space import ROW, apply_changes
from tract_ray.search.study import CHANGES, anchors_of, enqueue_anchors, rungs, sampler_for
from tract_ray.sweep.definition import Sweep
from tract_ray.terminal import duration
from tract_ray.tracking import redact
from tract_ray.training import find_teacher
from tract_ray.training.forecast import forecast
from tract_ray.training.stage_store import StageStore

CHANCES = 4  # rehearsals of a sweep that stops trials


def print_plan(sweep: Sweep, console: Console) -> None:
    """Print the space, the resources, the number of trainings, the ledger as it can be foreseen, and the time."""
    console.print(f"{sweep.experiment}: {sweep.question}\n")
    _print_space(sweep, console)
    _print_run(sweep, console)
    search = sweep.search
    found = find_teacher(sweep.run.teacher, sweep.paths) is not None
    teacher = "found" if found else "to be trained"
    trainings = search.trials * search.repeats + (not found)
    console.print(f"trainings: {trainings} ({search.trials} trials x {search.repeats} seeds, teacher {teacher})")
    if search.budget:
        console.print(f"budget: {search.budget.describe()}")
    ledger = foresee(sweep)
    show_ledger(ledger, console)
    _print_time(sweep, ledger.trained, console)
    console.print(f"nothing was run; the sweep would be {sweep.folder}, the record {redact(sweep.mlflow_uri)}")


def _print_space(sweep: Sweep, console: Console) -> None:
    space, search = sweep.space, sweep.search
    if space.listed:
        console.print("rows")
        for row in space.anchors[: search.trials]:
            console.print(f"  {row[ROW]}")
        return
    console.print("search space")
    for name, text in space.describe().items():
        console.print(f"  {name:<16} {text}")
    never = ", never stopped" if search.finish_anchors and search.stops else ""
    console.print(f"  {len(anchors_of(space, search))} of {search.trials} trials are anchors: run first{never}")


def _print_run(sweep: Sweep, console: Console) -> None:
    search, method = sweep.search, sweep.run.method
    console.print("the run that trials start from")
    for phase in method.phases():
        images = phase.steps * method.batch
        console.print(
            f"  phase {phase.index + 1}: {phase.teacher_steps} -> {phase.student_steps} steps, {images:,} images"
        )
    stopping = search.pruner + (f", one in {search.reduction} goes on" if search.pruner == "halving" else "")
    if search.stops:
        stopping += " at " + ", ".join(f"{seen:,}" for seen in rungs(sweep.run, search.rungs)) + " images seen"
    console.print(f"  {sweep.request.describe()}; early stopping: {stopping}; {search.repeats} seed(s) each")


def _print_time(sweep: Sweep, trained: int, console: Console) -> None:
    """About how long it takes to train so many images, and the teacher unless it was found."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        foreseen = forecast(sweep.run, sweep.paths)
    finally:
        torch.set_num_threads(threads)
    trial, taught = (3600 * h for h in (foreseen.training_hours / sweep.request.workers, foreseen.teacher_hours))
    parallel = max(1, sweep.concurrency)
    whole = taught + trial * trained / foreseen.images / parallel
    console.print(
        f"about {duration(trial)} a trial of {foreseen.parameters:,} parameters and {duration(taught)} for the teacher "
        f"on a CPU core like this one, {duration(whole)} in all at {parallel} at once, evaluation not counted"
    )


def rehearse(sweep: Sweep, seed: int = 0) -> JobQueue:
    """The queue of this sweep after it went through all of its runs, with distances by chance."""
    search = sweep.search
    study = optuna.create_study(
        directions=["minimize"] * len(search.objectives),
        sampler=sampler_for(sweep.space, search),
        pruner=search.build_pruner(),
    )
    enqueue_anchors(study, sweep.space, search)
    stages = RehearsedStages(StageStore(sweep.paths))
    queue = JobQueue(study, sweep.space, sweep.run, search, stages)
    Rehearsal(stages, slots=max(1, sweep.concurrency), score=by_chance(seed)).run(queue)
    return queue


def foresee(sweep: Sweep) -> Ledger:
    """What the sweep would cost: exactly where nothing is stopped, else the mean of what chance makes of it."""
    ledgers = []
    for seed in range(CHANCES if sweep.search.stops and sweep.search.sampler != "gp" else 1):
        queue = rehearse(sweep, seed)
        changed = {n: apply_changes(sweep.run, t.user_attrs[CHANGES]) for n, t in enumerate(queue.study.trials)}
        averages = {number: 1 + len(getattr(run.method, "mu_i_bank", ())) for number, run in changed.items()}
        ledgers.append(ledger_of(queue.account, banked(queue.account, averages)))
    naive, trained, stopped, bank = (
        round(sum(getattr(ledger, name) for ledger in ledgers) / len(ledgers))
        for name in ("naive", "trained", "stopped", "bank")
    )
    return Ledger(naive, trained, stopped, naive - stopped - trained, bank, 0.0)
