"""Splits texts into pieces that byte-level tokenizers treat alike wherever they occur, so that each is encoded once.

In GPT-2's pattern, by which Hugging Face's `ByteLevel` splits words, no word crosses white space, except for one space
in front of it. So in a text whose white space is single spaces before other characters, words (and hence ids) are those
of its pieces " like", " these". Any other text is a single piece.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import decoders, pre_tokenizers

from stages.tokenizer.load import LoadedTokenizer

#: Everything that any Unicode version or regex library classes as white space or control, except the plain space.
#: Too many is harmless: texts with such characters only take the slower path.
_UNUSUAL = (
    r"  | $|[\x00-\x1f\x7f-\x{a0}\x{ad}\x{180e}\x{1680}\x{2000}-\x{200f}\x{2028}-\x{202f}\x{205f}-\x{206f}"
    r"\x{3000}\x{feff}]"
)
#: Pieces whose ids are remembered.
_REMEMBERED = 200_000


def texts_array(texts: Iterable[str]) -> pa.Array:
    """Texts as an Arrow array, the input of :func:`split`."""
    return pa.array(texts, pa.large_string())


@dataclass(frozen=True)
class Pieces:
    """A batch of texts split into pieces."""

    usual: pa.Array
    """Pieces of the texts that could be split, concatenated."""
    whole: pa.Array
    """The texts that could not be split."""
    numbers: np.ndarray  # [texts], pieces of each text
    is_whole: np.ndarray  # [texts] bool


def split(texts: pa.Array) -> Pieces:
    """Split a batch of strings (no nulls) into pieces."""
    texts = texts.cast(pa.large_string())
    unusual = pc.match_substring_regex(texts, _UNUSUAL)
    cut = pc.split_pattern(pc.replace_substring(texts.filter(pc.invert(unusual)), " ", "\n "), "\n")
    is_whole = unusual.to_numpy(zero_copy_only=False)
    numbers = np.ones(len(texts), np.int64)
    numbers[~is_whole] = pc.list_value_length(cut).to_numpy(zero_copy_only=False)
    return Pieces(cut.flatten(), texts.filter(unusual), numbers, is_whole)


def can_split(tokenizer: LoadedTokenizer) -> bool:
    """Whether a text's ids are those of its pieces: the tokenizer is byte-level and no other step crosses spaces."""
    backend = tokenizer.backend
    cuts = backend.pre_tokenizer
    if not isinstance(cuts, pre_tokenizers.ByteLevel) or cuts.add_prefix_space or not cuts.use_regex:
        return False
    if backend.normalizer is not None or getattr(backend.model, "dropout", None):
        return False
    return all(
        not (token.lstrip or token.rstrip or token.single_word) and len(token.content.split()) == 1
        for token in backend.get_added_tokens_decoder().values()
    )


class PieceEncoder:
    """Encodes batches of texts to arrays, each distinct piece once; same ids as `LoadedTokenizer.encode_batch`."""

    def __init__(self, tokenizer: LoadedTokenizer) -> None:
        self._tokenizer = tokenizer
        self._splits = can_split(tokenizer)
        # Decoded bytes are concatenated, so a text is unchanged if each of its pieces is.
        self._joins = self._splits and isinstance(tokenizer.backend.decoder, decoders.ByteLevel)
        self._known: dict[str, list[int]] = {}
        self._lossy: set[str] = set()

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Ids of strings, concatenated (int64), and offsets [texts + 1] (int64); without bos and eos."""
        if not self._splits:
            return _joined(self._tokenizer.encode_batch(texts.to_pylist()))
        ids, offsets, _ = self._encode(split(texts))
        return ids, offsets

    def encode_checked(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As :meth:`encode`, and bool [texts]: whether the ids decode to a text that differs from the original.

        Each distinct piece is decoded once; a text with a piece that changes, or that was not split, is decoded whole.
        """
        if self._joins:
            pieces = split(texts)
            ids, offsets, lossy = self._encode(pieces)
            doubtful = np.zeros(len(texts), np.bool_)
            doubtful[np.repeat(np.arange(len(texts)), pieces.numbers)[lossy]] = True
            doubtful |= pieces.is_whole
        else:
            ids, offsets = self.encode(texts)
            doubtful = np.ones(len(texts), np.bool_)
        changed = np.zeros(len(texts), np.bool_)
        rows = [ids[offsets[text] : offsets[text + 1]].tolist() for text in np.flatnonzero(doubtful)]
        changed[doubtful] = self._tokenizer.changed(texts.filter(pa.array(doubtful)).to_pylist(), rows)
        return ids, offsets, changed

    def _encode(self, pieces: Pieces) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, offsets, and whether each piece does not decode to itself, bool [pieces]."""
        coded = pieces.usual.dictionary_encode()
        whole = self._tokenizer.encode_batch(pieces.whole.to_pylist())
        flat, offsets = _joined([*self._ids(coded.dictionary.to_pylist()), *whole])
        of_whole = np.repeat(pieces.is_whole, pieces.numbers)
        order = np.empty(len(of_whole), np.int64)
        order[~of_whole] = coded.indices.to_numpy()
        order[of_whole] = len(coded.dictionary) + np.arange(len(whole))
        starts, lengths = offsets[:-1][order], np.diff(offsets)[order]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        ids = flat[np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)]
        lossy = np.zeros(len(order), np.bool_)
        if self._lossy:
            lossy[~of_whole] = [piece in self._lossy for piece in pieces.usual.to_pylist()]
        return ids, ends[np.concatenate([[0], np.cumsum(pieces.numbers)])], lossy

    def _ids(self, pieces: list[str]) -> list[list[int]]:
        if len(self._known) > _REMEMBERED:
            self._known.clear()
            self._lossy.clear()
        new = [piece for piece in pieces if piece not in self._known]
        ids = self._tokenizer.encode_batch(new)
        self._known.update(zip(new, ids, strict=True))
        if self._joins:
            changed = self._tokenizer.changed(new, ids)
            self._lossy.update(piece for piece, lost in zip(new, changed, strict=True) if lost)
        return [self._known[piece] for piece in pieces]


def _joined(ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, ids), np.int64, count=len(ids)), out=offsets[1:])
    return np.fromiter(chain.from_iterable(ids), np.int64, count=int(offsets[-1])), offsets
