"""A trained tokenizer for training and evaluation: text to ids and back, without `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from stages.contract import UserError
from stages.tokenizer.config import BOS, EOS, PAD


class LoadedTokenizer:
    """Encodes text as text: `</s>` in a caption is five characters, never the end of the sequence."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True
        self.vocabulary: int = tokenizer.get_vocab_size()
        """Number of ids."""
        self.pad_id, self.bos_id, self.eos_id = (tokenizer.token_to_id(token) for token in (PAD, BOS, EOS))

    def encode(self, text: str) -> list[int]:
        """Ids of one text; no bos, no eos."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; no bos, no eos."""
        return [list(e.ids) for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without pad, bos, eos and the other control tokens. Broken UTF-8 shows as U+FFFD."""
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))

    def token_id(self, token: str) -> int:
        """Id of one token as written in the vocabulary, e.g. ``<loc_7>``. Raises KeyError for an unknown one."""
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise KeyError(token)
        return int(found)


def load(folder: str | Path) -> LoadedTokenizer:
    """The tokenizer in a folder (a `tokenizer` artifact, or `tokenizer/` of a trained model). Raises UserError."""
    file = Path(folder, "tokenizer.json")
    if not file.is_file():
        raise UserError(f"{folder} holds no tokenizer.json: not a tokenizer")
    return LoadedTokenizer(tokenizers.Tokenizer.from_file(str(file)))
