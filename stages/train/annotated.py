"""A task's own data as training samples: each image with some of its questions and answers, or captions."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.contract import UserError
from stages.tokenizer.load import LoadedTokenizer
from stages.train.annotated_files import AnnotatedFiles, read_annotated
from stages.train.dataset import ImageCache, Sample, Text, target_ids


class AnnotatedDataset:
    """One sample per image, with up to `texts_per_image` of its texts.

    An image's texts are taken in a seeded order, each epoch going on where the last one stopped, so all of them are
    seen equally often.
    """

    def __init__(
        self,
        files: AnnotatedFiles,
        tokenizer: LoadedTokenizer,
        prompt: str,
        texts_per_image: int,
        max_tokens: int,
        seed: int,
        cache_mb: int,
    ) -> None:
        self.files = files
        self.texts_per_image = texts_per_image
        self.seed = seed
        by_image: dict[Any, list[tuple[str, str]]] = {}
        for image_id, question, answer in read_annotated(files):
            lead = prompt.replace("{}", question)
            # Words follow the prompt as they follow each other: after a space, which byte-level BPE makes their own.
            by_image.setdefault(image_id, []).append((lead, f" {answer}" if lead else answer))
        self.image_ids = list(by_image)
        texts = [text for image_id in self.image_ids for text in by_image[image_id]]
        self._prompts = _Packed(tokenizer, [prompt for prompt, _ in texts])
        self._targets = _Packed(tokenizer, [target for _, target in texts])
        self._starts = np.cumsum([0, *(len(by_image[image_id]) for image_id in self.image_ids)])
        self._max_tokens = max_tokens
        self._cache = ImageCache(cache_mb)
        self._order = lru_cache(maxsize=1 << 16)(self._shuffled)

    def __len__(self) -> int:
        return len(self.image_ids)

    def sample(self, number: int, epoch: int) -> Sample:
        """The image with this epoch's share of its texts. Raises UserError when its file is missing or broken."""
        return Sample(
            uid=str(self.image_ids[number]),
            image_id=number,
            image=self._cache.get(number, lambda: self._decoded(number)),
            texts=tuple(self._text(row) for row in self._rows(number, epoch)),
        )

    def lengths(self, number: int, epoch: int) -> tuple[int, int]:
        """The sample's longest prompt and target, in tokens."""
        rows = self._rows(number, epoch)
        prompt = min(self._max_tokens, max(self._prompts.length(row) for row in rows))
        return prompt, min(self._max_tokens, max(self._targets.length(row) for row in rows) + 1)

    def _rows(self, number: int, epoch: int) -> list[int]:
        order = self._order(number)
        taken = min(self.texts_per_image, len(order))
        return [order[(epoch * taken + i) % len(order)] for i in range(taken)]

    def _shuffled(self, number: int) -> list[int]:
        first, last = int(self._starts[number]), int(self._starts[number + 1])
        order = np.random.default_rng([self.seed, number]).permutation(last - first)
        return [first + int(row) for row in order]

    def _text(self, row: int) -> Text:
        # A prompt that is too long loses its beginning: its end is what asks for the answer.
        prompt = self._prompts[row][-self._max_tokens :].astype(np.int64)
        return Text(prompt, target_ids(self._targets[row], self._max_tokens))

    def _decoded(self, number: int) -> Image.Image:
        path = Path(self.files.images, self.files.image_pattern.format(image_id=self.image_ids[number]))
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except FileNotFoundError:
            raise UserError(
                f"{path}: no such image, named by {self.files.annotations}: fix images or image_pattern"
            ) from None
        except OSError as error:
            raise UserError(f"{path}: not a readable image ({error}): replace or remove it") from None


class _Packed:
    """Token ids of many texts, end to end in one array."""

    def __init__(self, tokenizer: LoadedTokenizer, texts: list[str], chunk: int = 10_000) -> None:
        counts, ids = [0], []
        for start in range(0, len(texts), chunk):
            for encoded in tokenizer.encode_batch(texts[start : start + chunk]):
                counts.append(len(encoded))
                ids.append(np.asarray(encoded, dtype=np.int32))
        self._ids = np.concatenate(ids) if ids else np.empty(0, dtype=np.int32)
        self._offsets = np.cumsum(counts)

    def length(self, row: int) -> int:
        return int(self._offsets[row + 1] - self._offsets[row])

    def __getitem__(self, row: int) -> np.ndarray:
        return self._ids[self._offsets[row] : self._offsets[row + 1]]
