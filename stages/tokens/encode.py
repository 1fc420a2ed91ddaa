"""Encodes one shard's captions to ids, checks that they decode to the same text, and writes them as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.tokenizer.load import LoadedTokenizer
from stages.tokenizer.pieces import PieceEncoder, texts_array

#: Captions per batch: enough that words repeat, few enough that their Python lists stay small.
_AT_ONCE = 16_384


@dataclass(frozen=True)
class Encoded:
    """The ids of a shard's captions."""

    ids: NDArray[np.unsignedinteger]
    """Ids of all captions, concatenated, without bos and eos; uint16 or uint32."""
    offsets: NDArray[np.int64]
    """int64 [captions + 1]; caption i is ``ids[offsets[i]:offsets[i + 1]]``."""
    changed: NDArray[np.bool_]
    """bool [captions]; whether the ids decode to a text that differs from the caption."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each caption."""
        return np.diff(self.offsets)

    def unknown(self, unknown_id: int | None) -> NDArray[np.int64]:
        """Number of unknown tokens in each caption, int64 [captions]."""
        if unknown_id is None:
            return np.zeros(len(self.changed), dtype=np.int64)
        before = np.concatenate([[0], np.cumsum(self.ids == unknown_id)])
        return np.diff(before[self.offsets])

    def write(self, folder: Path, stem: str) -> None:
        """Write `<stem>.ids.npy` and `<stem>.offsets.npy`."""
        np.save(folder / f"{stem}.ids.npy", self.ids)
        np.save(folder / f"{stem}.offsets.npy", self.offsets)


def encode(tokenizer: LoadedTokenizer, captions: Iterable[str]) -> Encoded:
    """Encode captions in order, and decode each again to see whether the text is unchanged."""
    dtype, encoder = id_type(tokenizer.vocabulary), PieceEncoder(tokenizer)
    ids, lengths, changed = [np.empty(0, dtype)], [np.zeros(1, np.int64)], [np.empty(0, np.bool_)]
    rest = iter(captions)
    while texts := list(islice(rest, _AT_ONCE)):
        flat, offsets, lost = encoder.encode_checked(texts_array(texts))
        ids.append(flat.astype(dtype))
        lengths.append(np.diff(offsets))
        changed.append(lost)
    return Encoded(np.concatenate(ids), np.cumsum(np.concatenate(lengths)), np.concatenate(changed))


def id_type(vocabulary: int) -> type[np.unsignedinteger]:
    """The narrowest type that holds every id: uint16 up to 65,536 ids, uint32 above."""
    return np.uint16 if vocabulary <= 1 << 16 else np.uint32
