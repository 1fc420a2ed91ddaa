"""mosaicml-streaming: MDS shards by its MDSWriter, read by StreamingDataset and PyTorch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transforms
from PIL import Image
from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

PACKAGE = "mosaicml-streaming"
DECODER = "Pillow, by the column type jpeg"
#: Whether both ways read the same files.
SAME_DATA = False


def convert(files: Sequence[Path], folder: Path, way: transforms.Way, batch: int) -> None:
    """Write the photographs as they are: the column type `jpeg` copies the file an image was opened from."""
    columns = {"image": "jpeg" if way == "standard" else "bytes", "class": "int"}
    with MDSWriter(out=str(folder), columns=columns) as shards:
        for number, path in enumerate(files):
            if way == "standard":
                with Image.open(path) as image:
                    shards.write({"image": image, "class": number})
            else:
                shards.write({"image": path.read_bytes(), "class": number})


class _Photographs(StreamingDataset):
    def __init__(self, folder: Path, batch: int, way: transforms.Way) -> None:
        super().__init__(local=str(folder), shuffle=True, batch_size=batch)
        self.way = way

    def __getitem__(self, at: int) -> Any:
        sample = super().__getitem__(at)
        if self.way == "standard":
            return transforms.pillow(sample["image"]), sample["class"]
        return transforms.with_our_functions(sample["image"], str(sample["class"])), sample["class"]


def batches(folder: Path, batch: int, workers: int, way: transforms.Way) -> Iterator[torch.Tensor]:
    """One epoch of float32 [batch, 3, 224, 224]."""
    clean_stale_shared_memory()
    loader: DataLoader[Any] = DataLoader(
        _Photographs(folder, batch, way), batch_size=batch, num_workers=workers, drop_last=True
    )
    for pixels, _ in loader:
        yield pixels
