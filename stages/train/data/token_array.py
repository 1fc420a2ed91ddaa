"""Token ids of many texts in one array: no object per text, and cheap to hand to other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stages.tokenizer.load import LoadedTokenizer


class Placeholder(Enum):
    """A part of a text that is known only once its image has been cropped."""

    BOX = "box"


BOX = Placeholder.BOX
#: A text in pieces, one after the other.
Pieces = tuple[str | Placeholder, ...]
#: In place of each of a box's four location tokens: left, top, right, bottom.
BOX_TOKEN = -1


@dataclass(frozen=True)
class TokenArray:
    """Token ids end to end. Text `i` is ``array[i]``, int32."""

    ids: NDArray[np.int32]
    """[ids of all texts]."""
    offsets: NDArray[np.int64]
    """[texts + 1]."""

    def lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of many texts, both int64 [n]."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]


def encode_texts(tokenizer: LoadedTokenizer, texts: Sequence[Pieces], chunk: int = 10_000) -> TokenArray:
    """The ids of texts, each piece encoded separately; ``BOX_TOKEN`` four times for a box."""
    lengths: list[int] = []
    parts: list[NDArray[np.int32]] = []
    for start in range(0, len(texts), chunk):
        in_chunk = texts[start : start + chunk]
        encoded = iter(tokenizer.encode_batch([piece for text in in_chunk for piece in text if isinstance(piece, str)]))
        ids: list[int] = []
        for text in in_chunk:
            before = len(ids)
            for piece in text:
                ids += next(encoded) if isinstance(piece, str) else [BOX_TOKEN] * 4
            lengths.append(len(ids) - before)
        parts.append(np.array(ids, dtype=np.int32))
    flat = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
    return TokenArray(flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
