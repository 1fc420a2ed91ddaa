"""Megatron-Energon: webdataset's tars made a data set by `energon prepare`, read as its documentation shows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transforms
import with_webdataset
from megatron.energon import (
    DefaultTaskEncoder,
    ImageClassificationSample,
    SampleDecoder,
    WorkerConfig,
    get_loader,
    get_train_dataset,
    stateless,
)

PACKAGE = "megatron-energon"
DECODER = 'Pillow, by SampleDecoder(image_decode="pilrgb")'
#: Whether both ways read the same files.
SAME_DATA = True

#: Encoded samples each worker shuffles among, and neighbours it reads in one go: its documentation's figures.
_SHUFFLE, _SEQUENCE = 100, 100


def convert(files: Sequence[Path], folder: Path, way: transforms.Way, batch: int) -> None:
    """Write tars and have the library's own command index them."""
    with_webdataset.convert(files, folder, way, batch)
    fields = json.dumps({"image": "jpg", "label": "cls"})
    command = [str(Path(sys.executable).with_name("energon")), "prepare", str(folder), "--non-interactive"]
    command += ["--no-progress", "--split-ratio", "1,0,0", "--num-workers", "1"]
    command += ["--sample-type", "ImageClassificationSample", "--field-map", fields]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class _Standard(DefaultTaskEncoder):  # type: ignore[type-arg]
    decoder = SampleDecoder(image_decode="pilrgb")

    @stateless(restore_seeds=True)
    def encode_sample(self, sample: Any) -> Any:
        return _encoded(sample, transforms.pillow(sample.image), int(sample.label))


class _OurDecode(DefaultTaskEncoder):  # type: ignore[type-arg]
    decoder = None

    @stateless(restore_seeds=True)
    def encode_sample(self, sample: Any) -> Any:
        return _encoded(sample, transforms.with_our_functions(sample.image, sample.__key__), int(sample.label))


def _encoded(sample: Any, pixels: torch.Tensor, label: int) -> ImageClassificationSample:
    return ImageClassificationSample.derive_from(sample, image=pixels, label=label)


def batches(folder: Path, batch: int, workers: int, way: transforms.Way) -> Iterator[torch.Tensor]:
    """Float32 [batch, 3, 224, 224] without end."""
    data = get_train_dataset(
        str(folder),
        batch_size=batch,
        shuffle_buffer_size=_SHUFFLE,
        max_samples_per_sequence=_SEQUENCE,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=workers),
        task_encoder=_Standard() if way == "standard" else _OurDecode(),
    )
    for sample in get_loader(data):
        yield sample.image
