"""litdata: chunks by `optimize`, read by StreamingDataset and StreamingDataLoader as its README shows.

Its own image type decodes by torchvision to a tensor, which its README's transforms go on with. Where torchvision is
absent the bytes are stored as such and decoded by Pillow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import litdata
import torch
import transforms

PACKAGE = "litdata"
_TENSORS = find_spec("torchvision") is not None
DECODER = "torchvision, by its image type" if _TENSORS else "Pillow, of stored bytes"
#: Whether both ways read the same files.
SAME_DATA = False


def convert(files: Sequence[Path], folder: Path, way: transforms.Way, batch: int) -> None:
    """Write the photographs as they are in chunks of the default 64 MB."""
    litdata.optimize(
        fn=_image if way == "standard" and _TENSORS else _bytes,
        inputs=[(number, str(path)) for number, path in enumerate(files)],
        output_dir=str(folder),
        chunk_bytes="64MB",
        num_workers=1,
        verbose=False,
    )


def _image(item: tuple[int, str]) -> dict[str, Any]:
    return {"image": litdata.Image(path=item[1]), "class": item[0]}


def _bytes(item: tuple[int, str]) -> dict[str, Any]:
    return {"image": Path(item[1]).read_bytes(), "class": item[0]}


class _Photographs(litdata.StreamingDataset):
    def __init__(self, folder: Path, way: transforms.Way) -> None:
        super().__init__(str(folder), shuffle=True, drop_last=True, seed=42)
        self.way = way

    def __getitem__(self, index: Any) -> Any:
        sample = super().__getitem__(index)
        image, label = sample["image"], sample["class"]
        if self.way == "our_decode":
            return transforms.with_our_functions(image, str(label)), label
        if _TENSORS:
            return transforms.torchvision_tensor(image), label
        return transforms.pillow(transforms.opened(image)), label


def batches(folder: Path, batch: int, workers: int, way: transforms.Way) -> Iterator[torch.Tensor]:
    """One epoch of float32 [batch, 3, 224, 224]."""
    loader = litdata.StreamingDataLoader(
        _Photographs(folder, way), batch_size=batch, num_workers=workers, drop_last=True
    )
    for pixels, _ in loader:
        yield pixels
