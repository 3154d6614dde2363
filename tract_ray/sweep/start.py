"""From a script and its options to a sweep that can run: what the command line and Python both call."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import IO, Any

import optuna

from tract_ray.analysis.recorded_sweep import RecordedSweep, load_sweep
from tract_ray.cluster.resources import Request
from tract_ray.config import choose, require
from tract_ray.search.budget import parse_budget
from tract_ray.search.space import Space, Suggest, apply_changes
from tract_ray.search.study import Search, anchors_of, enqueue_anchors, limit
from tract_ray.sweep.definition import Sweep
from tract_ray.sweep.driver import run_sweep
from tract_ray.sweep.folder import newest
from tract_ray.sweep.options import Options
from tract_ray.sweep.script import Script, load_script, plan_of
from tract_ray.sweep.script_files import find_script
from tract_ray.terminal import make_console
from tract_ray.tracking import tracking_uri
from tract_ray.training import Paths, RunConfig
from tract_ray.training.paths import project_folder


def make_sweep(
    script: Script,
    options: Options,
    search: Mapping[str, Any],
    *,
    budget: str | None = None,
    warm_start: Sequence[str] = (),
    request: Request | None = None,
    concurrency: int = Sweep.concurrency,
    retries: int = Sweep.retries,
    wait_for_nodes: float = Sweep.wait_for_nodes,
    ray_address: str | None = None,
    paths: Paths,
    mlflow_uri: str | None = None,
    name: str | None = None,
    resume: bool = False,
) -> Sweep:
    """The sweep that `script` plans with these `options`; `search` are settings of `Search`, the script's its defaults.

    Raises `InputError` for what can be known to be wrong without any machine.
    """
    space, run = script.plan(options)
    settings = {"seed": options.seed, **script.defaults, **search, "trials": options.trials}
    found = Search(**settings)
    if budget:
        found = replace(found, budget=parse_budget(budget, run.method.samples * found.repeats))
    _check_space(space, run, found, options.settings)
    if resume:
        name = name or newest(paths, script.name)
    return Sweep(
        experiment=script.name,
        question=script.question,
        space=space,
        run=run,
        name=name or f"{script.name}-{time.strftime('%Y%m%d-%H%M%S')}",
        search=replace(found, trials=limit(space, found)),
        warm_start=tuple(warm_start),
        request=request or Request(),
        concurrency=concurrency,
        retries=retries,
        wait_for_nodes=wait_for_nodes,
        resume=resume,
        paths=paths,
        mlflow_uri=tracking_uri(mlflow_uri, project_folder()),
        ray_address=ray_address,
    )


def _check_space(space: Space, run: RunConfig, search: Search, given: Mapping[str, Any]) -> None:
    """Refuse a space that varies what the run does not have, or what was given: its first trials show it."""
    study = optuna.create_study(directions=["minimize"] * len(search.objectives))
    enqueue_anchors(study, space, search)
    for _ in range(max(1, len(anchors_of(space, search)))):
        changes = space.suggest(study.ask())
        varied = next((name for name in given if f"method.{name}" in changes), None)
        require(varied is None, "set", f"{varied} is what this sweep varies")
        apply_changes(run, changes)


def sweep(
    space: Suggest | Script | str | Path,
    dataset: str | None = None,
    *,
    anchors: Iterable[Mapping[str, Any]] = (),
    experiment: str | None = None,
    question: str = "",
    method: str | None = None,
    trials: int | None = None,
    time_schedule: str | Sequence[int] | None = None,
    samples: str | int | None = None,
    settings: Mapping[str, Any] | None = None,
    workers_per_trial: int = 1,
    cpus_per_worker: int = 1,
    gpus_per_worker: int = 0,
    budget: str | None = None,
    warm_start: Sequence[str] = (),
    concurrency: int = Sweep.concurrency,
    retries: int = Sweep.retries,
    ray_address: str | None = None,
    storage: str | Path | None = None,
    data_root: str | None = None,
    checkpoint_seconds: float = 60.0,
    on_disk_full: str = "wait",
    micro_batch: int = 0,
    mlflow_uri: str | None = None,
    name: str | None = None,
    resume: bool = False,
    output: IO[str] | None = None,
    **more: Any,
) -> RecordedSweep:
    """Search a space on Ray, and return what was found, as `load_sweep` does.

    `space` is a function that draws from an Optuna trial what it changes of the run, by dotted name
    (`{"method.mu_s": 0.9}`); or a sweep's name (`"mu_search"`) or a script's path, as `tract-ray sweep` takes them.
    `anchors` are parameters of trials that come first. All other arguments are the command's options: `more` are those
    of the runs (`recipe`, `network`, `batch`, `lr`, `teacher`, `teacher_samples`, `evaluation_samples`, `features`,
    `seed`, `fixed`) and of the search (`repeats`, `sampler`, `pruner`, `reduction`, `rungs`, `finish_anchors`,
    `objectives`). What it says goes to `output` (default: stdout).

    >>> import tract_ray as tr
    >>> def suggest(trial):
    ...     return {"method.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}
    >>> found = tr.sweep(suggest, "digits", trials=2, name="lr-example", **tiny_sweep)
    >>> len(found.rows), tr.load_model(found.student).steps
    (2, 1)
    """
    if isinstance(space, str | Path):
        space = load_script(find_script(str(space)))
    if not isinstance(space, Script):
        name_of_function = str(getattr(space, "__name__", "sweep"))
        space = Script(name=experiment or name_of_function, doc=question, plan=plan_of(space, anchors))
    of_runs = {f.name for f in fields(Options)}
    of_search = {f.name for f in fields(Search)}
    for key in more:
        choose("sweep", key, of_runs | of_search)
    options = Options(
        dataset=dataset,
        kind=method,
        time_schedule=time_schedule if isinstance(time_schedule, str | None) else ",".join(map(str, time_schedule)),
        samples=samples,
        settings=settings or {},
        trials=trials or space.defaults.get("trials", Search.trials),
        **{key: value for key, value in more.items() if key in of_runs},
    )
    made = make_sweep(
        space,
        options,
        {key: value for key, value in more.items() if key in of_search},
        budget=budget,
        warm_start=warm_start,
        request=Request(workers_per_trial, cpus_per_worker, gpus_per_worker),
        concurrency=concurrency,
        retries=retries,
        ray_address=ray_address,
        paths=Paths.at(storage, data_root, checkpoint_seconds, on_disk_full, micro_batch),
        mlflow_uri=mlflow_uri,
        name=name,
        resume=resume,
    )
    run_sweep(made, make_console(output))
    return load_sweep(made.name, storage=made.paths.storage)
