"""Batches on their way to the device: copied from pinned memory, one micro-batch ahead, while the device computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from models.common.batch import Batch
from stages.train.data.transform import ReplacedSample


@dataclass
class DeviceBatch:
    """A micro-batch on the device."""

    batch: dict[str, Any]
    """Fields of `models.common.batch.Batch`; pixels in the precision of training."""
    replaced: list[ReplacedSample]
    """Damaged samples that were replaced in it."""
    copied: Any
    """Event of the copies' end."""
    source: Batch | None
    """The host's tensors, kept while they are copied: a slot of the workers' memory is filled again once nothing shows
    it."""


class DeviceBatches:
    """Takes micro-batches from a loader to a device.

    Copies run on a stream of their own. On a CPU its streams and events do nothing, and so do copies that change no
    dtype; everything else is the same.
    """

    def __init__(
        self,
        batches: Iterator[Batch],
        take_replaced: Callable[[], list[ReplacedSample]],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """`take_replaced` returns what was replaced in the batches taken from ``batches`` since its last call."""
        self._batches = batches
        self._take_replaced = take_replaced
        self._device = device
        self._dtype = dtype
        self._streams = torch.get_device_module(device)
        self._copying = self._streams.Stream()
        self._ready: DeviceBatch | None = None
        self._under_way: deque[DeviceBatch] = deque()
        """Whose copies may not have ended yet."""

    def take(self) -> DeviceBatch:
        """The next micro-batch, for use on the current stream. The host does not wait for its copy."""
        self.prefetch()
        if self._ready is None:
            raise RuntimeError("the loader has no further micro-batch")
        taken, self._ready = self._ready, None
        current = self._streams.current_stream()
        current.wait_event(taken.copied)
        if self._device.type != "cpu":
            for value in taken.batch.values():
                if isinstance(value, Tensor):
                    value.record_stream(current)  # it was allocated on the other stream
        return taken

    def prefetch(self) -> None:
        """Start to copy the micro-batch after the one taken last, unless that has been done; waits for the loader.

        Called when the device has work queued, so that neither it nor the host waits for the other.
        """
        while self._under_way and self._under_way[0].copied.query():
            self._under_way.popleft().source = None
        if self._ready is not None or (batch := next(self._batches, None)) is None:
            return
        fields = cast(dict[str, Any], batch)
        with self._streams.stream(self._copying):
            copied = {name: self._copy(name, value) for name, value in fields.items()}
            event = self._streams.Event()
            event.record(self._copying)
        self._ready = DeviceBatch(copied, self._take_replaced(), event, batch)
        if event.query():
            self._ready.source = None
        else:
            self._under_way.append(self._ready)

    def _copy(self, name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if self._device.type != "cpu" and not value.is_pinned():
            value = value.pin_memory()  # torch frees it once the copy from it has ended
        # Converted on the device: on the host that would make another copy, which is not pinned.
        moved = value.to(self._device, non_blocking=True)
        return moved.to(self._dtype) if name == "pixels" else moved
