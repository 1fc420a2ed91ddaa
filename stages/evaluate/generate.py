"""Generating the texts: images and prompts in batches through a trained model's beam search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from models import registry
from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.evaluate.benchmarks.base import Example
from stages.evaluate.config import CaptionBenchmark, VqaBenchmark
from stages.tokenizer.load import LoadedTokenizer, load
from stages.train.data.augment import evaluation_transform
from stages.train.data.dataset import DamagedSample
from stages.train.data.decode import decode


@dataclass(frozen=True)
class Generator:
    """A trained model with its tokenizer, its prompt and its preprocessing of images."""

    model: Any
    tokenizer: LoadedTokenizer
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    prompt: str
    device: torch.device


def load_generator(model: Artifact, benchmark: VqaBenchmark | CaptionBenchmark, gpu: bool) -> Generator:
    """Load a `pretrain` or `finetune` artifact, once per process and device."""
    weights, tokenizer, record = _loaded(str(model.path()), "cuda" if gpu and torch.cuda.is_available() else "cpu")
    preprocessing = record["preprocessing"]
    return Generator(
        weights,
        tokenizer,
        int(preprocessing["image_size"]),
        tuple(preprocessing["mean"]),
        tuple(preprocessing["std"]),
        prompt_of(record, benchmark),
        next(weights.parameters()).device,
    )


def prompt_of(record: dict[str, Any], benchmark: VqaBenchmark | CaptionBenchmark) -> str:
    """The prompt a model was fine-tuned with (in its `train.json`) where it suits, else the benchmark's."""
    trained = str(record.get("prompt") or "")
    suits = bool(trained) and ("{}" in trained) == (benchmark.kind == "vqa")
    return trained if suits else benchmark.prompt


@lru_cache(maxsize=1)
def _loaded(folder: str, device: str) -> tuple[Any, LoadedTokenizer, dict[str, Any]]:
    record = Artifact(folder).read_json("train.json")
    model: torch.nn.Module = registry.load(Path(folder, "model"))
    return model.to(torch.device(device)), load(Path(folder, "tokenizer")), record


def generate_texts(
    generator: Generator,
    images: Sequence[Sequence[Example]],
    folder: Path,
    benchmark: VqaBenchmark | CaptionBenchmark,
    texts_per_batch: int,
) -> Iterator[tuple[Example, str]]:
    """The generated text of each example; each inner sequence holds the examples of one image.

    Every image is read and encoded once. Raises UserError naming an image that is missing or broken.
    """
    for batch in batches(images, texts_per_batch):
        examples = [example for of_image in batch for example in of_image]
        pixels = np.stack([_pixels(generator, folder, of_image[0], benchmark) for of_image in batch])
        index = [row for row, of_image in enumerate(batch) for _ in of_image]
        ids, mask = left_padded(
            generator.tokenizer.encode_batch([generator.prompt.replace("{}", e.question) for e in examples]),
            generator.tokenizer.special.pad,
        )
        with torch.inference_mode():
            generated = registry.generate(
                generator.model,
                torch.from_numpy(pixels).to(generator.device),
                torch.tensor(index, device=generator.device),
                torch.from_numpy(ids).to(generator.device),
                torch.from_numpy(mask).to(generator.device),
                num_beams=benchmark.beams,
                max_new_tokens=benchmark.max_new_tokens,
                min_new_tokens=benchmark.min_new_tokens,
                length_penalty=benchmark.length_penalty,
            )
        for example, row in zip(examples, generated.tolist(), strict=True):
            yield example, generator.tokenizer.decode(row).strip()


def batches(images: Iterable[Sequence[Example]], texts: int) -> Iterator[list[Sequence[Example]]]:
    """Batches of whole images, in order; a batch is full once its texts reach the given number."""
    batch: list[Sequence[Example]] = []
    for of_image in images:
        batch.append(of_image)
        if sum(map(len, batch)) >= texts:
            yield batch
            batch = []
    if batch:
        yield batch


def left_padded(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask, int64 [n, length]; length may be 0."""
    length = max(map(len, sequences), default=0)
    ids = np.full((len(sequences), length), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        if sequence:
            ids[row, -len(sequence) :] = sequence
            mask[row, -len(sequence) :] = 1
    return ids, mask


def _pixels(
    generator: Generator, folder: Path, example: Example, benchmark: VqaBenchmark | CaptionBenchmark
) -> np.ndarray:
    """float32 [3, size, size]."""
    name = benchmark.image_pattern.format(image_id=example.image_id, file_name=example.file_name)
    try:
        # Decoded as in training: upright, and 16-bit greys in the same way.
        image = Image.fromarray(decode((folder / name).read_bytes()))
        return evaluation_transform(image, generator.image_size, generator.mean, generator.std)
    except FileNotFoundError:
        raise UserError(
            f"image {example.image_id}: no file {folder / name}; check the benchmark's images and image_pattern"
        ) from None
    except (DamagedSample, OSError) as error:
        raise UserError(f"image {example.image_id}: {folder / name} does not decode ({error}); get it again") from None
