"""webdataset: tars by its ShardWriter, read by WebDataset and WebLoader as its README shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transforms
import webdataset as wds

PACKAGE = "webdataset"
DECODER = 'Pillow, by .decode("pil")'
#: Whether both ways read the same files.
SAME_DATA = True

#: Encoded samples each worker shuffles among.
_SHUFFLE = 1000


def convert(files: Sequence[Path], folder: Path, way: transforms.Way, batch: int) -> None:
    """Write the photographs in tars of 4 batches, so that two workers have the same number of them."""
    with wds.ShardWriter(str(folder / "%06d.tar"), maxcount=4 * batch, verbose=0) as tars:
        for number, path in enumerate(files):
            tars.write({"__key__": f"{number:08d}", "jpg": path.read_bytes(), "cls": number})


def batches(folder: Path, batch: int, workers: int, way: transforms.Way) -> Iterator[torch.Tensor]:
    """One epoch of float32 [batch, 3, 224, 224]."""
    data = wds.WebDataset([str(path) for path in sorted(folder.glob("*.tar"))], shardshuffle=100, seed=0)
    data = data.shuffle(_SHUFFLE)
    if way == "standard":
        data = data.decode("pil").to_tuple("jpg", "cls").map_tuple(transforms.pillow, _same)
    else:
        data = data.to_tuple("jpg", "cls", "__key__").map(_with_our_functions)
    loader = wds.WebLoader(data.batched(batch, partial=False), batch_size=None, num_workers=workers)
    for pixels, _ in loader:
        yield pixels


def _same(label: Any) -> Any:
    return label


def _with_our_functions(sample: tuple[bytes, bytes, str]) -> tuple[torch.Tensor, int]:
    return transforms.with_our_functions(sample[0], sample[2]), int(sample[1])
