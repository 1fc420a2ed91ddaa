"""The batches of one rank: the samples of each step, transformed and collated, a few micro-batches ahead."""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from models.common.batch import Batch
from stages.tokenizer.special import SpecialIds
from stages.train.config import OptimizationConfig
from stages.train.data.augment import draws_flip
from stages.train.data.dataset import Dataset, TextTotals, TokenizedText
from stages.train.data.pinned import pin, pinned_array
from stages.train.data.sampler import BatchSampler, rank_rows
from stages.train.data.shuffle import sample_seeds
from stages.train.data.transform import ReplacedSample, SampleTransform, TransformedSample, TransformSettings
from stages.train.data.workers.pool import WorkerPool
from stages.train.data.workers.protocol import Layout

#: Micro-batches in the workers' memory that the caller may hold at a time; of further ones it gets copies.
_HELD = 2

Key = tuple[int, int]
"""(step, micro-step)."""
Made = tuple[Batch, list[ReplacedSample]]
"""A micro-batch, and the samples that were replaced in it."""


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
        needs_texts: bool = True,
        pin_pixels: bool = False,
    ) -> None:
        """`needs_texts`: whether images without a text are left out; otherwise a batch may have images without any.
        `pin_pixels`: pixels lie in pinned memory, from which a GPU copies them while it computes."""
        self.dataset = dataset
        self.settings = settings
        self.image_size = image_size
        self.rank = rank
        self.world_size = world_size
        self.accumulation = accumulation
        self.special = special or SpecialIds()
        self.needs_texts = needs_texts
        self.sampler = BatchSampler(dataset, settings.seed, settings.global_batch, mixture, needs_texts)
        self._totals = lru_cache(maxsize=8)(self._count_texts)
        self._replaced: list[ReplacedSample] = []
        """Samples replaced in the micro-batches handed out since the last call of :meth:`take_replaced`."""
        transform_settings = TransformSettings(
            settings.seed,
            image_size,
            *settings.pixel_statistics,
            settings.augmentation,
            settings.corrupt_samples,
            needs_texts,
        )
        # Workers cannot use what another one decoded, so only a loader without workers caches images.
        cache_mb = 0 if settings.loader_workers else settings.image_cache_mb
        self._transform = SampleTransform(dataset, transform_settings, cache_mb)
        self._pin_pixels = pin_pixels
        self._unpin: Callable[[], None] = lambda: None
        self._pool: WorkerPool | None = None
        self._free: deque[int] = deque()
        """Slots of the pool that neither workers nor the model use."""

    def micro_batch(self, step: int, micro_step: int) -> Batch:
        """What this rank takes through the model in one micro-step of a run-wide, 0-based step, made at once."""
        batch, replaced = self._make((step, micro_step))
        self._replaced += replaced
        return batch

    def batches(self, first: int, last: int) -> Generator[Batch, None, None]:
        """Every micro-batch of the steps `first` to `last - 1`, the next ones made meanwhile."""
        keys = [(step, micro) for step in range(first, last) for micro in range(self.accumulation)]
        if self.settings.loader_workers:
            made = self._from_workers(keys)
        elif self.settings.prefetch:
            made = self._from_thread(keys)
        else:
            made = (self._make(key) for key in keys)
        with closing(made):
            for batch, replaced in made:
                self._replaced += replaced
                yield batch
                del batch  # before the next one is made: it may hold a slot of the workers' memory

    def take_replaced(self) -> list[ReplacedSample]:
        """Samples replaced in the micro-batches handed out since the last call."""
        replaced, self._replaced = self._replaced, []
        return replaced

    def close(self) -> None:
        """End the worker processes, if there are any."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
            self._unpin()

    def _samples(self, key: Key) -> list[tuple[int, int]]:
        """(epoch, number) of each sample of the rank's micro-batch."""
        step, micro_step = key
        epochs, numbers = self.sampler.batch(step)
        mine = rank_rows(micro_step, self.rank, self.accumulation, self.settings.micro_batch)
        return list(zip(epochs[mine].tolist(), numbers[mine].tolist(), strict=True))

    def _make(self, key: Key) -> Made:
        shape = (self.settings.micro_batch, 3, self.image_size, self.image_size)
        pixels = pinned_array(shape) if self._pin_pixels else np.empty(shape, dtype=np.float32)
        samples = [
            self._transform(epoch, number, row) for (epoch, number), row in zip(self._samples(key), pixels, strict=True)
        ]
        return self._collate(key, pixels, samples)

    def _collate(self, key: Key, pixels: NDArray[np.float32], samples: Sequence[TransformedSample]) -> Made:
        step, micro_step = key
        epochs, numbers = self.sampler.batch(step)
        # All ranks pad to the longest text of any of them.
        shape = (self.world_size, self.accumulation, self.settings.micro_batch)
        of_all_ranks = (part.reshape(shape)[:, micro_step].ravel() for part in (numbers, epochs))
        prompt_length, target_length = self.dataset.longest(*of_all_ranks)
        mine = rank_rows(micro_step, self.rank, self.accumulation, self.settings.micro_batch)
        batch = collate(
            pixels,
            [sample.image_id for sample in samples],
            [sample.texts for sample in samples],
            prompt_length,
            target_length,
            self.special.pad,
        )
        if self.needs_texts:
            totals, parts = self._totals(step), self.world_size * self.accumulation
            batch["mean_texts"] = torch.tensor(totals.texts / parts, dtype=torch.float32)
            batch["mean_target_tokens"] = torch.tensor(totals.target_tokens / parts, dtype=torch.float32)
        batch["image_seed"] = torch.from_numpy(sample_seeds(self.settings.seed, epochs[mine], numbers[mine]))
        return batch, [sample.replaced for sample in samples if sample.replaced]

    def _count_texts(self, step: int) -> TextTotals:
        """Of the step's whole global batch, as planned: a sample in a damaged one's place may have a shorter text."""
        epochs, numbers = self.sampler.batch(step)
        settings = self.settings

        def flips(sample_seed: str, epoch: int) -> bool:
            return draws_flip(settings.augmentation, settings.seed, epoch, sample_seed)

        return self.dataset.totals(numbers, epochs, flips)

    def _from_workers(self, keys: list[Key]) -> Generator[Made, None, None]:
        ahead = max(1, self.settings.prefetch)
        if self._pool is None:
            layout = Layout(ahead + _HELD, self.settings.micro_batch, self.image_size)
            self._pool = WorkerPool(self._transform, self.settings.loader_workers, layout)
            self._unpin = pin(self._pool.slots) if self._pin_pixels else lambda: None
            self._free = deque(range(layout.slots))
            weakref.finalize(self, self._pool.close)
        pool, free = self._pool, self._free
        slot_of: dict[int, int] = {}
        submitted = 0
        try:
            for number, key in enumerate(keys):
                while submitted < len(keys) and submitted - number < ahead and free:
                    slot_of[submitted] = free.popleft()
                    pool.submit(submitted, slot_of[submitted], self._samples(keys[submitted]))
                    submitted += 1
                samples = pool.result(number)
                slot = slot_of.pop(number)
                pixels = pool.slots[slot]
                held = pool.layout.slots - len(free) - len(slot_of) - 1
                if held < _HELD:
                    weakref.finalize(pixels, free.append, slot)  # once no tensor shows this array any more
                else:
                    pixels = pixels.copy()
                    free.append(slot)
                made = self._collate(key, pixels, samples)
                del pixels
                yield made
                del made
        finally:
            if slot_of or submitted < len(keys):
                self.close()  # work under way would end up in the slots of another iteration

    def _from_thread(self, keys: list[Key]) -> Generator[Made, None, None]:
        ready: queue.Queue[Made | BaseException] = queue.Queue(self.settings.prefetch)
        stopped = threading.Event()

        def put(item: Made | BaseException) -> None:
            while not stopped.is_set():
                with suppress(queue.Full):
                    ready.put(item, timeout=0.5)
                    return

        def produce() -> None:
            try:
                for key in keys:
                    if stopped.is_set():
                        return
                    put(self._make(key))
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that takes the batches
                put(error)

        thread = threading.Thread(target=produce, name="loader", daemon=True)
        thread.start()
        try:
            for _ in keys:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                del item
        finally:
            stopped.set()
            thread.join()


def collate(
    pixels: NDArray[np.float32],
    image_ids: Sequence[int],
    texts: Sequence[Sequence[TokenizedText]],
    prompt_length: int = 0,
    target_length: int = 1,
    pad: int = 0,
) -> Batch:
    """A batch of images, float32 [images, 3, height, width], not copied, and every image's texts in turn.

    Prompts are padded on the left and targets on the right to the longest, but at least to the lengths given: ranks
    that agree on those have tensors of equal shape to gather.
    """
    flat = [text for own in texts for text in own]
    owners = [row for row, own in enumerate(texts) for _ in own]
    prompt_length = max([prompt_length, *(len(text.prompt) for text in flat)])
    target_length = max([target_length, *(len(text.target) for text in flat)])
    prompt = np.full((len(flat), prompt_length), pad, dtype=np.int64)
    target = np.full((len(flat), target_length), pad, dtype=np.int64)
    prompt_mask, target_mask = np.zeros_like(prompt), np.zeros_like(target)
    for row, text in enumerate(flat):
        if len(text.prompt):
            prompt[row, -len(text.prompt) :] = text.prompt
            prompt_mask[row, -len(text.prompt) :] = 1
        target[row, : len(text.target)] = text.target
        target_mask[row, : len(text.target)] = 1
    return Batch(
        pixels=torch.from_numpy(pixels),
        image_index=torch.tensor(owners, dtype=torch.int64),
        image_id=torch.tensor([image_ids[owner] for owner in owners], dtype=torch.int64),
        prompt_ids=torch.from_numpy(prompt),
        prompt_mask=torch.from_numpy(prompt_mask),
        target_ids=torch.from_numpy(target),
        target_mask=torch.from_numpy(target_mask),
        target_positions=torch.from_numpy(np.flatnonzero(target_mask)),
        full_prompts=bool(prompt_mask.all()),
    )
