"""A task's own data as training samples: each image with some of its questions and answers, captions or regions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.train.data.annotated_files import AnnotatedFiles, AnnotatedText, read_annotated
from stages.train.data.crop import Crop, location_bins, location_ids
from stages.train.data.dataset import (
    DamagedSample,
    Flips,
    Subset,
    TextTotals,
    TokenizedText,
    TrainingSample,
    target_ids,
)
from stages.train.data.flip_text import flip_text, mentions_side
from stages.train.data.token_array import BOX, BOX_TOKEN, Pieces, encode_texts

if TYPE_CHECKING:
    from stages.tokenizer.load import LoadedTokenizer


class AnnotatedDataset:
    """One sample per image, with up to `texts_per_image` of its texts.

    An image's texts are taken in a seeded order, each epoch continuing where the last one stopped, so all of them are
    seen equally often. Of regions there are two kinds: the prompt holds the caption and the target is the region's box,
    or the prompt holds the box (`{box}` in its template) and the target is the caption. Texts of regions swap left and
    right in a flipped crop; where that is not certain, and for answers and captions that name a side, the image is
    never flipped. Holds arrays of ids and no tokenizer, so it is cheap to hand to other processes.
    """

    def __init__(
        self,
        files: AnnotatedFiles,
        tokenizer: LoadedTokenizer,
        prompt: str,
        texts_per_image: int,
        max_tokens: int,
        seed: int,
    ) -> None:
        self.files = files
        self.texts_per_image = texts_per_image
        self._max_tokens = max_tokens
        self._eos = tokenizer.special.eos
        self._locations = location_ids(tokenizer) if files.regions else None

        annotations = read_annotated(files)
        numbers: dict[Any, int] = {}
        owners = np.array([numbers.setdefault(a.image_id, len(numbers)) for a in annotations], dtype=np.int64)
        self.image_ids = list(numbers)
        # Rows by image, each image's in an order of its own, drawn for all of them at once.
        order = np.lexsort((np.random.default_rng(seed).random(len(owners)), owners))
        annotations = [annotations[row] for row in order]
        self._starts = np.searchsorted(owners[order], np.arange(len(self.image_ids) + 1))

        texts = [_pieces(annotation, prompt) for annotation in annotations]
        self._prompts = encode_texts(tokenizer, [lead for lead, _ in texts])
        self._targets = encode_texts(tokenizer, [target for _, target in texts])
        if not files.regions:
            self._boxes = None
            self._flipped_prompts, self._flipped_targets = self._prompts, self._targets
            sided = (mentions_side(a.question) or mentions_side(a.text) for a in annotations)
            self._flippable = ~np.fromiter(sided, dtype=bool, count=len(annotations))
            return
        self._boxes = np.array([a.box for a in annotations], dtype=np.float32)
        flipped = [flip_text(a.text) for a in annotations]
        self._flippable = np.array([text is not None for text in flipped])
        flipped_texts = [
            _pieces(AnnotatedText(a.image_id, a.question, a.text if text is None else text, a.box), prompt)
            for a, text in zip(annotations, flipped, strict=True)
        ]
        self._flipped_prompts = encode_texts(tokenizer, [lead for lead, _ in flipped_texts])
        self._flipped_targets = encode_texts(tokenizer, [target for _, target in flipped_texts])

    def __len__(self) -> int:
        return len(self.image_ids)

    def sample(self, number: int, epoch: int) -> TrainingSample:
        """The image with this epoch's share of its texts. Raises UserError when its file is missing."""
        rows = self._rows(number, epoch)
        return TrainingSample(
            uid=str(self.image_ids[number]),
            image_id=number,
            image=self._read(number),
            texts=partial(self._texts, number, rows),
            boxes=None if self._boxes is None else self._boxes[rows],
            flippable=bool(self._flippable[rows].all()),
        )

    def lengths(self, number: int, epoch: int) -> tuple[int, int]:
        """The sample's longest prompt and target, in tokens, flipped or not."""
        return self.longest(np.array([number]), np.array([epoch]))

    def longest_texts(self) -> tuple[int, int]:
        """The longest prompt and target of all texts, in tokens."""
        return self._longest(np.arange(self._starts[-1]))

    def longest(self, numbers: NDArray[np.int64], epochs: NDArray[np.int64]) -> tuple[int, int]:
        """The longest prompt and target of many samples, as :meth:`lengths` has them."""
        _, rows = self._rows_of(numbers, epochs)
        return self._longest(rows)

    def _longest(self, rows: NDArray[np.int64]) -> tuple[int, int]:
        prompt = max(texts.lengths(rows).max() for texts in (self._prompts, self._flipped_prompts))
        target = max(texts.lengths(rows).max() for texts in (self._targets, self._flipped_targets))
        return min(self._max_tokens, int(prompt)), min(self._max_tokens, int(target) + 1)

    def totals(self, numbers: NDArray[np.int64], epochs: NDArray[np.int64], flips: Flips) -> TextTotals:
        """The texts, and the tokens of their targets with eos. A box has four tokens in any crop."""
        owners, rows = self._rows_of(numbers, epochs)
        plain, flipped = (
            np.minimum(self._max_tokens, texts.lengths(rows) + 1) for texts in (self._targets, self._flipped_targets)
        )
        tokens = int(plain.sum())
        # Left and right may differ in tokens; few samples' texts do.
        for sample in np.unique(owners[plain != flipped]).tolist():
            own = owners == sample
            if self._flippable[rows[own]].all() and flips(str(self.image_ids[numbers[sample]]), int(epochs[sample])):
                tokens += int((flipped - plain)[own].sum())
        return TextTotals(len(rows), tokens)

    def subsets(self, sources: Sequence[str]) -> Mapping[str, Subset]:
        """Raises UserError: a task's data have no sources."""
        raise UserError(f"{self.files.annotations}: a task's data have no sources to mix: remove `mixture`")

    def with_texts(self) -> None:
        """None: every image has a text."""

    @property
    def image_only(self) -> Collection[str]:
        """None are."""
        return ()

    def uid(self, number: int) -> str:
        """The image's id."""
        return str(self.image_ids[number])

    def source(self, number: int) -> str:
        """Empty: a task's data have no sources."""
        return ""

    def _rows(self, number: int, epoch: int) -> list[int]:
        _, rows = self._rows_of(np.array([number]), np.array([epoch]))
        return rows.tolist()

    def _rows_of(
        self, numbers: NDArray[np.int64], epochs: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The texts of many samples in turn, int64 [texts] each: the place of its sample in `numbers`, and its row."""
        first = self._starts[numbers]
        texts = self._starts[numbers + 1] - first
        counts = np.minimum(self.texts_per_image, texts)
        owners = np.repeat(np.arange(len(numbers)), counts)
        nth = np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners]
        return owners, first[owners] + ((epochs * counts)[owners] + nth) % texts[owners]

    def _texts(self, number: int, rows: Sequence[int], crop: Crop) -> tuple[TokenizedText, ...]:
        bins = self._bins(number, rows, crop)
        prompts = self._flipped_prompts if crop.flipped else self._prompts
        targets = self._flipped_targets if crop.flipped else self._targets
        return tuple(
            # A prompt that is too long loses its beginning: the question is at its end.
            TokenizedText(
                _with_box(prompts[row], box)[-self._max_tokens :],
                target_ids(_with_box(targets[row], box), self._max_tokens, self._eos),
            )
            for row, box in zip(rows, bins, strict=True)
        )

    def _bins(self, number: int, rows: Sequence[int], crop: Crop) -> Sequence[NDArray[np.int64] | None]:
        """For each row, the ids of its box's four location tokens; None where texts have no boxes."""
        if self._boxes is None or self._locations is None:
            return [None] * len(rows)
        boxes = self._boxes[rows]
        if (boxes[:, :2] >= (crop.width, crop.height)).any() or (boxes[:, 2:] <= 0).any():
            raise UserError(
                f"{self.files.annotations}: a bbox of image {self.image_ids[number]} lies outside of it, which has "
                f"{crop.width} x {crop.height} pixels: do annotations and images belong together?"
            )
        return list(self._locations[location_bins(boxes, crop)])

    def _read(self, number: int) -> bytes:
        path = Path(self.files.images, self.files.image_pattern.format(image_id=self.image_ids[number]))
        try:
            return path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise UserError(
                f"{path}: no such image, named by {self.files.annotations}: fix images or image_pattern"
            ) from None
        except PermissionError:
            raise UserError(f"{path}: this image may not be read: change its permissions") from None
        except OSError as error:
            uid = str(self.image_ids[number])
            raise DamagedSample(f"uid {uid}: its file cannot be read ({error.strerror})", uid) from None


def _pieces(annotation: AnnotatedText, template: str) -> tuple[Pieces, Pieces]:
    """(prompt, target) of an annotation."""
    # Words follow the prompt as they follow each other: after a space, which byte-level BPE makes their own.
    words = f" {annotation.text}" if template else annotation.text
    if annotation.box is None:
        return (template.replace("{}", annotation.question),), (words,)
    if "{box}" in template:
        before, after = template.split("{box}", 1)
        return (before, BOX, after), (words,)
    return (template.replace("{}", annotation.text),), (BOX,)


def _with_box(ids: NDArray[np.int32], box: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """int64 ids of a text, with the ids of its box where the box belongs."""
    filled = ids.astype(np.int64)
    if box is not None:
        np.place(filled, filled == BOX_TOKEN, box)
    return filled
