"""Equal results share a key and different ones never do, over thousands of drawn configurations of all methods."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from histories import ends_of
from runs import tiny_run, without_stages
from safetensors.torch import load_file
from test_keys import from_folder, read_as, teacher_of

from tract_ray.config import InputError
from tract_ray.distillation import methods
from tract_ray.training import EvaluationConfig, NetworkConfig, Paths, RunConfig, run_distillation
from tract_ray.training.stage_store import STATE, StageStore

BASE = tiny_run()
KINDS = sorted(set(methods) - {"denoising"})
BATCH = 16
HEURISTIC = 1e-3 ** (1 / 20)

POOLS: dict[str, list[Any]] = {
    "samples": [40 * BATCH, 40 * BATCH + 5, 60 * BATCH],
    "lr": [1e-3, 2e-3],
    "lr_decay": ["constant", "linear"],
    "warmup": [0, 1, 3, 4, 5, 1000],
    "clip_norm": [1.0, 1, 2.0],
    "weighting": ["uniform", "truncated_snr"],
    "loss_reduction": ["mean", "sum"],
    "adam_eps": [1e-8, 1e-12],
    "mu_i": [None, 0.5, HEURISTIC],
    "mu_i_last": [None, None, 0.5, 0.9],
    "mu_i_residual": [1e-3, 1e-2],
    "mu_i_bank": [(), (0.5,), (0.9, 0.5), (0.5, 0.9), (0.79432823472,)],
    "mu_i_bank_phases": ["last", "all"],
    "mu_i_snapshots": [0, 0, 2],
    "student_init": ["teacher", "continue"],
    "keep_optimizer": [False, True],
    "time_schedule": [(8, 4, 1), (8, 4, 2), (8, 1), (16, 4, 1)],
    "phase_shares": [(), (1, 1), (1.0, 1.0), (2, 2), (1, 3)],
    "boundary": ["exact", "after"],
    "mu_s": [0.5, 0.9],
    "lr_path": [(), (), (1e-3, 1e-3), (1e-3, 2e-3), (1e-3, 1e-3, 2e-3, 2e-3), (1e-3, 1e-3, 1e-3)],
    "clip_x0": ["none", "all"],
    "start_steps": [8, 4],
    "end_steps": [1, 2],
    "teacher_steps": [8, 16],
    "pairs": [0, 64],
    "pairs_seed": [0, 1],
    "sampling_steps": [4, 8],
    "preconditioner_steps": [3, 60, 100, 1000],
}
SPELT: list[tuple[NetworkConfig | None, str]] = [  # a student's network, and which it is
    (None, "teacher's"),
    (NetworkConfig(name="mlp_8x8", options={"width": 16, "blocks": 1, "embedding": 16}), "teacher's"),
    (NetworkConfig(name="mlp_8x8_small", options={"width": 16, "blocks": 1, "embedding": 16}), "teacher's"),
    (NetworkConfig(name="mlp_8x8", options={"dropout": 0.0, "blocks": 1, "width": 16, "embedding": 16}), "teacher's"),
    (NetworkConfig(name="mlp_8x8", options={"width": 8, "blocks": 1, "embedding": 16}), "narrow"),
    (NetworkConfig(name="mlp_8x8", options={"width": 16, "blocks": 2, "embedding": 16}), "deep"),
]


LATE = {"mu_i_last", "mu_i_bank", "mu_i_snapshots", "time_schedule", "end_steps", "lr_path"}  # may spare phase 1


class Begun(NamedTuple):
    """What a run begins with, and the networks of its phases where it names them, as the folders below were made."""

    weights: str
    network: str
    source: str
    seed: int
    phases: tuple[str, ...] = ()


class Drawn:
    """Runs by draw; each comes with what it begins with."""

    def __init__(self, paths: Paths, folder: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        model = teacher_of(paths)
        v, eps = (read_as(model, kind, folder / kind) for kind in ("v", "eps"))
        copy = model.save(folder / "copy")
        longer = replace(BASE.teacher.training, samples=20 * 16 + 3)  # not by a step
        self.teachers = [
            (BASE.teacher, "v"),
            (replace(BASE.teacher, training=longer), "v"),
            (from_folder(v).teacher, "v"),
            (from_folder(copy).teacher, "v"),
            (from_folder(eps).teacher, "eps"),
            (replace(BASE.teacher, seed=1), "other"),
        ]
        self.starts = [("teacher", "teacher"), ("random", "random"), (str(copy), "v")]

    def method(self, kind: str, base: Any = None, changes: int = 0) -> Any:
        """A configuration of `kind`: from the pools, or `base` with some settings drawn again."""
        config_type = methods[kind].config_type
        names = [f.name for f in dataclasses.fields(config_type) if f.name in POOLS]
        if base and self.draw.random() < 0.4:
            names = [name for name in names if name in LATE]
        chosen = self.draw.sample(names, min(changes, len(names)) if base else 5)
        for _ in range(100):
            given = {name: self.draw.choice(POOLS[name]) for name in chosen}
            try:
                if base:
                    return replace(base, **given)
                return config_type(**{"samples": 40 * BATCH, "batch": BATCH, "lr": 1e-3, **given})
            except InputError:
                continue
        return base or config_type(samples=40 * BATCH, batch=BATCH, lr=1e-3)

    def students(self, run: RunConfig, begun: Begun) -> tuple[RunConfig, Begun]:
        """The same run, sometimes with a network for each phase; the first is its teacher's."""
        run, begun, count = replace(run, students=()), begun._replace(phases=()), len(run.method.phases())
        if begun.network != "teacher's" or begun.source != begun.weights or count == 1 or self.draw.random() < 0.7:
            return run, begun
        drawn = [self.draw.choice([*SPELT[:4], *SPELT]) for _ in range(count - 1)]
        names = ["teacher's"]
        for network, name in drawn:
            names.append(name if network else names[-1])
        students = (run.student, *(network for network, _ in drawn))
        return replace(run, student=None, students=students), begun._replace(phases=tuple(names))

    def run(self, base: tuple[RunConfig, Begun] | None = None) -> tuple[RunConfig, Begun]:
        """A run and what it begins with; near `base` where there is one."""
        draw = self.draw
        if base is None or draw.random() < 0.3:
            teacher, weights = draw.choice(self.teachers)
            student, network = draw.choice(SPELT)
            start, source = draw.choice(self.starts)
            if source == "v" and (network != "teacher's" or weights != "v"):
                start, source = "teacher", "teacher"
            method = base[0].method if base else self.method(draw.choice(KINDS))
            whole = network == "teacher's" and source != "random"
            begun = Begun(weights, network, (weights if whole else source), draw.choice([0, 0, 1]))
            run = RunConfig(teacher=teacher, method=method, student=student, student_from=start, seed=begun.seed)
            return self.students(run, begun)
        run, begun = base
        evaluation = EvaluationConfig(
            features=draw.choice(["", "classifier"]),
            samples=draw.choice([80, 90]),
            rung_samples=draw.choice([70, 75]),
            select=draw.choice(["best", "own"]),
            report=draw.choice(["chosen", "all"]),
        )
        method = self.method(run.method.kind, run.method, draw.choice([0, 1, 1, 2]))
        plain = replace(run, student=run.first_student, students=(), parts=0)
        changed = replace(plain, method=method, evaluation=evaluation if draw.random() < 0.5 else run.evaluation)
        changed = replace(changed, parts=draw.choice(range(len(method.part_ends()) + 1)))
        if len(method.phases()) == len(run.method.phases()) and draw.random() < 0.7:
            return replace(changed, student=run.student, students=run.students), begun
        return self.students(changed, begun)


@pytest.fixture(scope="module")
def drawn(trained: Paths, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[RunConfig, Begun]]:
    """2,200 pairs, each a run and a near one."""
    source, runs = Drawn(trained, tmp_path_factory.mktemp("folders"), 7), []
    for _ in range(2200):
        first = source.run()
        runs += [first, source.run(first)]
    return runs


def test_equal_results_share_a_key_and_different_ones_never_do(
    drawn: list[tuple[RunConfig, Begun]], trained: Paths
) -> None:
    """Among all stages of all the runs, keys and results stand one to one; so do scores."""
    store, of_key, of_result = StageStore(trained), dict[str, str](), dict[str, str]()
    alike = Counter[str]()
    for number, (run, begun) in enumerate(drawn):
        stages, told = store.stages_of(run), ends_of(run, begun[:4], "digits", begun.phases)
        assert len(stages) == len(told), run
        for stage, (result, scores) in zip(stages, told, strict=True):
            for key, wanted in ((stage.key, result), ("scored " + stage.scored, "scored " + scores)):
                assert of_key.setdefault(key, wanted) == wanted, f"one key, two results: {run}"
                assert of_result.setdefault(wanted, key) == key, f"one result, two keys: {run}"
        if number % 2:
            before = [stage.key for stage in store.stages_of(drawn[number - 1][0])]
            alike["pairs"] += 1
            alike["same"] += before == [stage.key for stage in stages]
            alike["part"] += before[0] == stages[0].key and before[-1] != stages[-1].key
            alike["other"] += not set(before) & {stage.key for stage in stages}
    assert alike["pairs"] >= 2000
    assert min(alike["same"], alike["part"], alike["other"]) >= 60, alike
    assert {run.method.kind for run, _ in drawn} == set(KINDS)
    middle = sum(0 < run.parts < len(run.method.part_ends()) for run, _ in drawn)
    named = [set(begun.phases) for _, begun in drawn if begun.phases]
    assert min(middle, len(named), sum(names == {"teacher's"} for names in named)) >= 30


def method(kind: str, **settings: Any) -> RunConfig:
    plain = {"samples": 20 * BATCH, "batch": BATCH, "lr": 1e-3, **settings}
    return replace(BASE, method=methods[kind].config_type(**plain))


MATCHING = {"sampling_steps": 2, "lr": 1e-4}
ALIKE = [  # pairs of runs, and how many stages they have in common
    (
        method("tract", time_schedule=(8, 2, 1), lr_path=(1e-3,) * 2, mu_i_bank=(0.5,)),
        method("tract", time_schedule=(8, 2, 1), phase_shares=(2.0, 2.0), mu_i_bank=(0.5, 0.5), warmup=1),
        2,
    ),
    (
        method("tract", time_schedule=(8, 2, 1), keep_optimizer=True, mu_i_last=0.5),
        method("tract", time_schedule=(8, 2, 1), keep_optimizer=True, mu_i_bank=(0.9,)),
        1,
    ),
    (
        method("moment_matching", lr_decay="linear", warmup=2, **MATCHING),
        method("moment_matching", samples=20 * BATCH + 7, warmup=1000, student_init="continue", **MATCHING),
        1,
    ),
    (
        method("regression", teacher_steps=4, pairs=0, pairs_seed=3),
        method("regression", teacher_steps=4, pairs=0, mu_i=1e-3 ** (1 / 20)),
        1,
    ),
]


@pytest.mark.parametrize("pair", ALIKE, ids=lambda pair: pair[0].method.kind)
def test_equal_keys_are_of_equal_bits(pair: tuple[RunConfig, RunConfig, int], trained: Paths, tmp_path: Path) -> None:
    """Each trains in a cache of its own; what they keep under one key is the same."""
    first, second, common = pair
    kept = []
    for number, run in enumerate((first, second)):
        paths = without_stages(trained, tmp_path / str(number))
        run_distillation(run, paths, tmp_path / f"run-{number}")
        store = StageStore(paths)
        kept.append({s.key: load_file(store.path(s) / STATE) for s in store.stages_of(run) if store.has(s)})
    shared = kept[0].keys() & kept[1].keys()
    assert len(shared) == common
    for key in shared:
        one, two = kept[0][key], kept[1][key]
        assert one.keys() == two.keys()
        assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
