"""Tokenised captions as numbers: every word an id, all captions one after the other; and renumbering of keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np


@dataclass(frozen=True)
class EncodedCaptions:
    """Captions as word ids."""

    ids: np.ndarray
    """int64 [words of all captions], caption after caption."""
    starts: np.ndarray
    """int64 [captions + 1]: caption c is ``ids[starts[c]:starts[c + 1]]``."""
    vocabulary: list[str]
    """Id -> word."""

    @property
    def lengths(self) -> np.ndarray:
        """int64 [captions]."""
        return np.diff(self.starts)


_END = "\x00"


def number(captions: Sequence[str], separator: str | None = None) -> EncodedCaptions:
    """Number the words of captions, split at `separator` (None: at any white space) as `str.split` does."""
    # One split of one long text makes no list per caption; a mark ends each caption.
    flat = f" {_END} ".join([*captions, ""]).split(separator)
    if separator is not None:
        flat.pop()  # what stands behind the last mark: an empty word, if split at single spaces
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(chain((_END,), flat)), -1)}
    ids = np.fromiter(map(vocabulary.__getitem__, flat), np.int64, len(flat))
    ends = np.flatnonzero(ids < 0)
    if len(ends) != len(captions):  # one of them holds the mark itself
        return number([caption.replace(_END, "\ufffd") for caption in captions], separator)
    starts = np.zeros(len(captions) + 1, dtype=np.int64)
    starts[1:] = ends - np.arange(len(ends))
    del vocabulary[_END]
    return EncodedCaptions(ids[ids >= 0], starts, list(vocabulary))


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers of several ranges, one after the other: ``[*range(s, s + n), ...]`` for every start and length."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def renumbered(keys: np.ndarray) -> tuple[np.ndarray, int]:
    """int64 [n] keys -> their numbers from 0, int64 [n], and the number of distinct keys."""
    import pyarrow as pa

    # Arrow's hash table takes an eighth of the time of numpy's unique, which has to sort the keys and find them again.
    # Buffers, not to_numpy: pyarrow imports pandas to convert from and to NumPy.
    array = pa.Array.from_buffers(pa.int64(), len(keys), [None, pa.py_buffer(np.ascontiguousarray(keys))])
    encoded = array.dictionary_encode()
    indices = np.frombuffer(encoded.indices.buffers()[1], np.int32, len(encoded)).astype(np.int64)
    return indices, len(encoded.dictionary)
