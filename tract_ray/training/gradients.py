"""The gradients of a step: of a worker's whole share of the batch, or of equal parts of it one after the other.

Parts are what a memory that is too small for the share asks for. Their noise, times and masks are the share's own,
drawn once, so the gradients are those of the undivided batch but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tract_ray.config import MachineFailed, require
from tract_ray.distillation import Batch, Method, PartOfDraws
from tract_ray.files import read_json, write_json
from tract_ray.networks.layers import share_dropout
from tract_ray.training.notes import note
from tract_ray.training.worker import Worker

FOUND = "micro_batch.json"
"""What a run that ran out of memory goes on with, also after an interruption: its rounding stays the same."""
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a tensor had no room: torch has an exception for GPUs, and words for processors."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return type(error) is RuntimeError and any(words in str(error) for words in NO_MEMORY)


def check_micro_batch(micro_batch: int, batch: int, workers: int, divisible: bool, kind: str) -> None:
    """Refuse parts that are not equal, and parts of what has none."""
    share = batch // workers
    if 0 < micro_batch < share:
        each = "a batch" if workers == 1 else "a worker's share"
        require(share % micro_batch == 0, "micro-batch", f"{micro_batch} does not divide {each} of {share} images")
        require(divisible, "micro-batch", f"{kind} compares the halves of a whole batch; leave it out")


class Gradients:
    """Makes the gradients of each step of a run in `folder`, in smaller parts once the memory was too small.

    Several workers cannot divide in the middle of a step, in which the others wait for them: theirs fails, and begins
    again with the parts that it wrote down.
    """

    def __init__(self, method: Method, folder: Path, worker: Worker, micro_batch: int) -> None:
        self.method, self.folder, self.worker = method, folder, worker
        self.share = method.config.batch // worker.world
        check_micro_batch(micro_batch, method.config.batch, worker.world, method.divisible, method.kind)
        found = read_json(folder / FOUND, "micro-batch")["images"] if (folder / FOUND).is_file() else 0
        images = min([size for size in worker.gather((micro_batch, found))[0] if size] or [self.share])
        self.parts = self.share // images if images and self.share % images == 0 else 1
        for denoiser in method.trained.values():
            share_dropout(denoiser.module, worker.rank, worker.world)

    def of(self, name: str, make: Callable[[], Batch], seed: int) -> tuple[Batch, Tensor]:
        """Leave the gradients of a batch in the network `name`; returns the batch and its mean loss.

        `make` makes the batch, as often as it is called; `seed` is that of the step's dropout.
        """
        while True:
            try:
                batch = make()
                return batch, self._accumulated(name, batch, seed)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else "out of memory"
            self._divide(reason)

    def _accumulated(self, name: str, batch: Batch, seed: int) -> Tensor:
        network = self.method.trained[name].module
        for parameter in network.parameters():
            parameter.grad = None
        total = torch.zeros((), device=batch.images.device)
        for part, piece in enumerate(divided(batch, self.parts)):
            # Dropout draws the global batch's masks from the global generator: seeding it here makes it resume exactly.
            torch.manual_seed(seed)
            if self.parts > 1:
                share_dropout(network, self.worker.rank * self.parts + part, self.worker.world * self.parts)
            with self._communicates(name, part == self.parts - 1):
                loss = self.method.loss(piece).mean()
                (loss * (loss_scale(self.method, piece) / self.parts)).backward()
            total = total + loss.detach() / self.parts
        return total

    def _communicates(self, name: str, last: bool) -> AbstractContextManager[None]:
        """Workers add up their gradients once, after the last part."""
        network = self.method.trained[name].network
        if last or not isinstance(network, DistributedDataParallel):
            return nullcontext()
        return cast("AbstractContextManager[None]", network.no_sync())

    def _divide(self, reason: str) -> None:
        """Go on in smaller parts; raises `MachineFailed` where there are none."""
        for module in self.method.modules().values():
            module.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self.method.divisible:
            raise MachineFailed(f"memory: a batch of {self.share} does not fit, and {self.method.kind} needs it whole")
        smaller = next((n for n in range(2 * self.parts, self.share + 1) if self.share % n == 0), None)
        if smaller is None:
            raise MachineFailed(f"memory: not even one image fits into that of {self.worker.device} ({reason})")
        images = self.share // smaller
        note(self.folder, f"memory: {self.share // self.parts} images at a time do not fit; going on with {images}")
        write_json(self.folder / FOUND, {"images": images})
        if self.worker.world > 1:
            raise MachineFailed(f"memory: too small for the batch; it is tried again with {images} images at a time")
        self.parts = smaller


def loss_scale(method: Method, batch: Batch) -> int:
    """What makes the mean over pixels, which every method returns, the reduction that is differentiated."""
    return batch.images[0].numel() if method.config.loss_reduction == "sum" else 1


def divided(batch: Batch, parts: int) -> list[Batch]:
    """The equal parts of a batch, in order; itself where it stays whole."""
    if parts == 1:
        return [batch]
    size, drawn = len(batch.images) // parts, list[Tensor]()
    pieces = [slice(part * size, (part + 1) * size) for part in range(parts)]
    return [
        Batch(
            batch.images[piece],
            None if batch.labels is None else batch.labels[piece],
            PartOfDraws(batch.draws, piece, drawn),
            batch.step,
        )
        for piece in pieces
    ]
