"""The batches of one rank: which samples a step takes, read and augmented, a few prepared ahead."""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from models.batch import Batch
from stages.tokenizer.special import SpecialIds
from stages.train.config import OptimizationConfig
from stages.train.data.collate import collate
from stages.train.data.dataset import Dataset
from stages.train.data.sampler import Stream
from stages.train.data.transform import Preparation, Prepared, Preparer, Replaced
from stages.train.data.workers.memory import Layout
from stages.train.data.workers.pool import WorkerPool
from stages.train.trainer.batching import rows

#: Micro-batches in the workers' memory that whoever trains may hold at a time; of further ones it gets copies.
_HELD = 2

Key = tuple[int, int]


class Loader:
    """A pure function of (step, micro-step) for one data-parallel rank: it holds no state to save or restore."""

    def __init__(
        self,
        dataset: Dataset,
        settings: OptimizationConfig,
        image_size: int,
        rank: int,
        world_size: int,
        accumulation: int,
        special: SpecialIds | None = None,
        mixture: Mapping[str, float] | None = None,
    ) -> None:
        self.dataset = dataset
        self.settings = settings
        self.image_size = image_size
        self.rank = rank
        self.world_size = world_size
        self.accumulation = accumulation
        self.special = special or SpecialIds()
        self.stream = Stream(dataset, settings.seed, settings.global_batch, mixture)
        self.replaced: deque[Replaced] = deque()
        """Samples replaced in the micro-batches handed out so far; whoever trains empties it."""
        preparation = Preparation(
            settings.seed,
            image_size,
            settings.image_mean,
            settings.image_std,
            settings.augmentation,
            settings.corrupt_samples,
        )
        # What a worker decoded another one cannot use, so only a loader without workers keeps images.
        self._preparer = Preparer(dataset, preparation, 0 if settings.loader_workers else settings.image_cache_mb)
        self._pool: WorkerPool | None = None
        self._free: deque[int] = deque()
        """Slots of the pool that neither workers nor whoever trains use."""

    def micro_batch(self, step: int, micro_step: int) -> Batch:
        """What this rank takes through the model in one micro-step of a run-wide, 0-based step, made at once."""
        pixels = np.empty((self.settings.micro_batch, 3, self.image_size, self.image_size), dtype=np.float32)
        made = [
            self._preparer(epoch, number, row)
            for (epoch, number), row in zip(self._samples((step, micro_step)), pixels, strict=True)
        ]
        return self._collated((step, micro_step), pixels, made)

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Every micro-batch of the steps `first` to `last - 1`, the next ones prepared meanwhile."""
        wanted = [(step, micro) for step in range(first, last) for micro in range(self.accumulation)]
        if self.settings.loader_workers:
            return self._from_workers(wanted)
        if self.settings.prefetch:
            return self._from_thread(wanted)
        return (self.micro_batch(*key) for key in wanted)

    def close(self) -> None:
        """End the worker processes, if there are any."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _samples(self, key: Key) -> list[tuple[int, int]]:
        step, micro_step = key
        epochs, numbers = self.stream.batch(step)
        mine = rows(micro_step, self.rank, self.accumulation, self.settings.micro_batch)
        return list(zip(epochs[mine].tolist(), numbers[mine].tolist(), strict=True))

    def _collated(self, key: Key, pixels: NDArray[np.float32], made: list[Prepared]) -> Batch:
        step, micro_step = key
        self.replaced.extend(prepared.replaced for prepared in made if prepared.replaced)
        epochs, numbers = self.stream.batch(step)
        # All ranks pad to the longest text of any of them.
        shape = (self.world_size, self.accumulation, self.settings.micro_batch)
        ours = (part.reshape(shape)[:, micro_step].ravel() for part in (numbers, epochs))
        prompt, target = self.dataset.longest(*ours)
        return collate(
            pixels,
            [prepared.image_id for prepared in made],
            [prepared.texts for prepared in made],
            prompt,
            target,
            self.special.pad,
        )

    def _from_workers(self, wanted: list[Key]) -> Iterator[Batch]:
        ahead = max(1, self.settings.prefetch)
        if self._pool is None:
            layout = Layout(ahead + _HELD, self.settings.micro_batch, self.image_size)
            self._pool = WorkerPool(self._preparer, self.settings.loader_workers, layout)
            self._free = deque(range(layout.slots))
            weakref.finalize(self, self._pool.close)
        pool, free = self._pool, self._free
        slot_of: dict[int, int] = {}
        submitted = 0
        try:
            for turn, key in enumerate(wanted):
                while submitted < len(wanted) and submitted - turn < ahead and free:
                    slot_of[submitted] = free.popleft()
                    pool.submit(submitted, slot_of[submitted], self._samples(wanted[submitted]))
                    submitted += 1
                made = pool.result(turn)
                slot = slot_of.pop(turn)
                pixels = pool.slots[slot]
                held = pool.layout.slots - len(free) - len(slot_of) - 1
                if held < _HELD:
                    weakref.finalize(pixels, free.append, slot)  # once no tensor shows this array any more
                else:
                    pixels = pixels.copy()
                    free.append(slot)
                batch = self._collated(key, pixels, made)
                del pixels
                yield batch
                del batch
        finally:
            if slot_of or submitted < len(wanted):
                self.close()  # work under way would end up in the slots of another iteration

    def _from_thread(self, wanted: list[Key]) -> Iterator[Batch]:
        ready: queue.Queue[Batch | BaseException] = queue.Queue(self.settings.prefetch)
        stopped = threading.Event()

        def put(item: Batch | BaseException) -> None:
            while not stopped.is_set():
                with suppress(queue.Full):
                    ready.put(item, timeout=0.5)
                    return

        def prepare() -> None:
            try:
                for key in wanted:
                    if stopped.is_set():
                        return
                    put(self.micro_batch(*key))
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that asked for the batch
                put(error)

        thread = threading.Thread(target=prepare, name="loader", daemon=True)
        thread.start()
        try:
            for _ in wanted:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            thread.join()
