"""The batches of one rank: which samples a step takes, read and augmented, a few prepared ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from models.batch import Batch
from stages.train.augment import sample_random, training_transform
from stages.train.batching import positions
from stages.train.collate import collate
from stages.train.config import OptimizationConfig
from stages.train.dataset import Dataset, Text
from stages.train.order import Order


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
    ) -> None:
        self.dataset = dataset
        self.settings = settings
        self.image_size = image_size
        self.rank = rank
        self.world_size = world_size
        self.accumulation = accumulation
        self.order = Order(len(dataset), settings.seed)
        self._pool = ThreadPoolExecutor(settings.loader_threads) if settings.loader_threads > 1 else None

    def micro_batch(self, step: int, micro_step: int) -> Batch:
        """What this rank takes through the model in one micro-step of a run-wide, 0-based step."""
        own = positions(step, micro_step, self.rank, self.world_size, self.settings)
        made = list(self._pool.map(self._prepared, own) if self._pool else map(self._prepared, own))
        # All ranks pad to the longest text of any of them.
        shared = [
            self.dataset.lengths(number, epoch)
            for rank in range(self.world_size)
            for epoch, number in map(self.order, positions(step, micro_step, rank, self.world_size, self.settings))
        ]
        return collate(
            [pixels for pixels, _, _ in made],
            [image_id for _, image_id, _ in made],
            [texts for _, _, texts in made],
            max(prompt for prompt, _ in shared),
            max(target for _, target in shared),
        )

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Every micro-batch of the steps `first` to `last - 1`, the next ones prepared by a thread meanwhile."""
        wanted = [(step, micro) for step in range(first, last) for micro in range(self.accumulation)]
        if not self.settings.prefetch:
            yield from (self.micro_batch(*key) for key in wanted)
            return
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

    def _prepared(self, position: int) -> tuple[np.ndarray, int, tuple[Text, ...]]:
        epoch, number = self.order(position)
        sample = self.dataset.sample(number, epoch)
        settings = self.settings
        pixels = training_transform(
            sample.image,
            self.image_size,
            settings.image_mean,
            settings.image_std,
            settings.augmentation,
            sample_random(settings.seed, epoch, sample.seed),
        )
        return pixels, sample.image_id, sample.texts
