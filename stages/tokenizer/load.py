"""Loads a tokenizer, trained here or imported, for training and evaluation: text to ids and back, no `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from stages.base.contract import UserError
from stages.tokenizer.special import SpecialIds, special_ids, token_ids, tokenizer_json, unknown_token

_OURS = SpecialIds()


class LoadedTokenizer:
    """Encodes plain text: `</s>` in a caption is five characters, never the end of the sequence."""

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, special: SpecialIds = _OURS, unknown_id: int | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True
        # Imported tokenizers may carry truncation and padding settings.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.special = special
        """Ids that pad, begin and end a text."""
        self.unknown_id = unknown_id
        """Id of the unknown token; None if there is none (every byte-level vocabulary)."""
        ids = tokenizer.get_vocab(with_added_tokens=True).values()
        self.vocabulary: int = max(ids, default=-1) + 1
        """Number of ids: the highest id plus one, which is the number of rows an embedding needs."""

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The wrapped `tokenizers.Tokenizer`."""
        return self._tokenizer

    @property
    def pad_id(self) -> int:
        """Of `special`."""
        return self.special.pad

    @property
    def bos_id(self) -> int:
        """Of `special`."""
        return self.special.bos

    @property
    def eos_id(self) -> int:
        """Of `special`."""
        return self.special.eos

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without bos and eos."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without bos and eos."""
        return [list(e.ids) for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without pad, bos, eos and the other control tokens. Invalid UTF-8 becomes U+FFFD."""
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))

    def decode_batch(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids, as in :meth:`decode`."""
        return [str(text) for text in self._tokenizer.decode_batch(list(ids), skip_special_tokens=True)]

    def changed(self, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> list[bool]:
        """Whether the ids of each text decode to a different text."""
        return [text != again for text, again in zip(texts, self.decode_batch(ids), strict=True)]

    def losses(self, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> tuple[int, int]:
        """Losses of encoding: number of texts whose `ids` decode to a different text, and number of unknown tokens."""
        unknown = 0 if self.unknown_id is None else sum(list(row).count(self.unknown_id) for row in ids)
        return sum(self.changed(texts, ids)), unknown

    def token_id(self, token: str) -> int:
        """Id of one token as written in the vocabulary, e.g. ``<loc_7>``. Raises KeyError for an unknown one."""
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise KeyError(token)
        return int(number)


def load(folder: str | Path) -> LoadedTokenizer:
    """The tokenizer in a folder (a `tokenizer` artifact, or `tokenizer/` of a trained model). Raises UserError."""
    root = Path(folder)
    content = tokenizer_json(root)
    ids = token_ids(content)
    unknown = unknown_token(content)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(root / "tokenizer.json"))
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise UserError(f"{root / 'tokenizer.json'} cannot be read ({error}); save it again") from None
    return LoadedTokenizer(tokenizer, special_ids(root, ids), None if unknown is None else ids.get(unknown))
