"""A run, stage by stage: what another run has trained already is taken over, the rest is trained and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tract_ray.data import Dataset
from tract_ray.distillation import Method
from tract_ray.training.checkpoint import CHECKPOINT, Position, move_checkpoint, restore_method
from tract_ray.training.damage import sound_checkpoint, undamaged
from tract_ray.training.keys import Start, run_key
from tract_ray.training.loop import train
from tract_ray.training.record import MarkScore, Record, read_scores
from tract_ray.training.run_config import RunConfig
from tract_ray.training.scoring import Scorer, evaluation_marks
from tract_ray.training.stage_store import StageStore
from tract_ray.training.stages import Stage, stages_from
from tract_ray.training.worker import Worker

Report = Callable[[dict[str, Any]], None]


class StagedRun:
    """One run in `folder`, from what it begins with (`start_of`).

    `report` is told every score but the last, once nothing can lose it any more.

    A run that continues after an interruption, or takes over a stage, reports the scores of what it did not train
    again, in their order: whoever compares runs at these marks sees the same, whatever happened.
    """

    def __init__(
        self,
        config: RunConfig,
        start: Start,
        method: Method,
        dataset: Dataset,
        scorer: Scorer,
        store: StageStore | None,
        folder: Path,
        worker: Worker,
        report: Report | None = None,
        on_step: Callable[[int, float], None] | None = None,
        checkpoint_seconds: float = 60.0,
        micro_batch: int = 0,
    ) -> None:
        self.config, self.method, self.dataset, self.scorer = config, method, dataset, scorer
        self.store, self.folder, self.worker = store, folder, worker
        self.report, self.on_step = report, on_step
        self.checkpoint_seconds, self.micro_batch = checkpoint_seconds, micro_batch
        self.key, self.stages = run_key(config, start.key), stages_from(config, start, dataset.name)
        marks = evaluation_marks(method.phases, config.evaluation.per_phase)
        self.marks = {*marks, *(stage.end for stage in self.stages)}  # a stage is kept with its score

    def run(self) -> Position:
        """Bring the run to its end; returns where it stands then and what it has cost."""
        position = self._restored()
        self._replay(position, 0)
        for stage in self.stages:
            if position.step == stage.end:
                self._publish(stage, position)  # killed after its last checkpoint, and before this
            while position.step < stage.end:
                with self._claim(stage) as found:
                    if not found:
                        position = self._train(stage)
                    elif taken := self._take_over(stage, position):
                        position = taken
        return position

    @contextmanager
    def _claim(self, stage: Stage) -> Iterator[bool]:
        if self.store is None:
            yield False
            return
        with self.store.claim(stage, self.worker) as found:
            yield found

    def _restored(self) -> Position:
        found = sound_checkpoint(self.folder, self.key, self.worker)
        if found is None:
            return Position()
        self._restore(*found)
        return Position.of(found[0])

    def _restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        restore_method(self.method, state, tensors)
        self.method.to(self.worker.device)

    def _train(self, stage: Stage) -> Position:
        def on_saved(position: Position) -> None:
            if position.step == stage.end:
                self._publish(stage, position)
            assert self.scorer.last is not None
            self._report(self._samples(position.step), self.scorer.last, position)

        return train(
            self.method,
            self.dataset,
            seed=self.config.seed,
            key=self.key,
            folder=self.folder,
            worker=self.worker,
            marks=self.marks,
            on_mark=self.scorer.at_mark,
            on_saved=on_saved,
            on_step=self.on_step,
            until=stage.end,
            checkpoint_seconds=self.checkpoint_seconds,
            micro_batch=self.micro_batch,
        )

    def _publish(self, stage: Stage, position: Position) -> None:
        if self.store is None or not self.worker.leads or self.store.has(stage):
            return
        seconds = position.seconds * stage.samples / max(position.trained, stage.samples)
        self.store.publish(stage, self.method, self.folder, seconds)

    def _take_over(self, stage: Stage, position: Position) -> Position | None:
        """Put the run where the stage ends; None where the stage is damaged."""
        assert self.store is not None
        begun, leads = time.perf_counter(), self.worker.leads
        store = self.store
        read = undamaged(lambda: store.read(stage), lambda: store.set_aside(stage), self.folder, self.worker)
        if read is None:
            return None
        state, tensors = read
        lines = self.store.copy_record(stage, self.folder, self.config.method.batch) if leads else 0
        self._restore(state, tensors)
        record = Record(self.folder, lines, enabled=leads)
        if not self.store.scored_alike(stage):
            self.scorer.at_mark(stage.end, record)
        taken = replace(
            position,
            step=stage.end,
            record_lines=record.lines,
            loss_sum=0.0,
            loss_count=0,
            seconds=position.seconds + (time.perf_counter() - begun) * self.worker.world,
        )
        if leads:
            move_checkpoint(self.folder / CHECKPOINT, state, tensors, taken, self.key)
        self._replay(taken, stage.start)
        return taken

    def _replay(self, position: Position, after: int) -> None:
        """Report the scores in the record between the steps `after` and that of `position`."""
        scores = read_scores(self.folder) if self.worker.leads and position.step else []
        for samples, score in self.worker.gather(scores)[0]:
            if self._samples(after) < samples <= self._samples(position.step):
                self.scorer.last = score
                self._report(samples, score, position)

    def _report(self, samples: int, score: MarkScore, position: Position) -> None:
        if self.report and samples < self._samples(self.stages[-1].end):
            told = {"samples": samples, "distance": score.distance, "mu_i": score.mu_i, "finished": False}
            self.report({**told, "trained": position.trained, "device_seconds": position.seconds})

    def _samples(self, step: int) -> int:
        return step * self.config.method.batch
