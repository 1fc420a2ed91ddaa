"""What a tokenizer does to each corpus: fertility, characters per token, and the way there and back."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from stages.tokenizer.config import TokenizerConfig
from stages.tokenizer.corpus import Corpus
from stages.tokenizer.load import LoadedTokenizer


def report(config: TokenizerConfig, corpora: list[Corpus], tokenizer: LoadedTokenizer) -> dict[str, Any]:
    """Figures only, no text. Raises RuntimeError when a text does not come back as it went in."""
    used = np.zeros(tokenizer.vocabulary, dtype=bool)
    measured = {corpus.name: _measure(config, corpus, tokenizer, used) for corpus in corpora}
    failed = {name: figures["round_trip_failed"] for name, figures in measured.items() if figures["round_trip_failed"]}
    if failed:
        raise RuntimeError(f"the tokenizer changes texts on the way there and back: {failed}")
    return {
        "vocabulary": tokenizer.vocabulary,
        "special_tokens": len(config.control_tokens()),
        "task_tokens": len(config.task_tokens),
        "location_tokens": config.location_tokens,
        "merges": tokenizer.vocabulary - len(config.added_tokens()) - 256,
        "ids_used_in_samples": int(used.sum()),
        "corpora": measured,
    }


def _measure(config: TokenizerConfig, corpus: Corpus, tokenizer: LoadedTokenizer, used: np.ndarray) -> dict[str, Any]:
    texts = list(islice(corpus.lines(), config.checked_captions))
    encoded = tokenizer.encode_batch(texts)
    for ids in encoded:
        used[ids] = True
    tokens = sum(len(ids) for ids in encoded)
    words = sum(len(text.split()) for text in texts)
    characters = sum(len(text) for text in texts)
    pairs = zip(texts, encoded, strict=True)
    return {
        "trained_on": not corpus.private or config.include_private,
        "private": corpus.private,
        "texts": len(texts),
        "tokens": tokens,
        "fertility": tokens / words if words else 0.0,
        "characters_per_token": characters / tokens if tokens else 0.0,
        "round_trip_failed": sum(tokenizer.decode(ids) != text for text, ids in pairs),
    }
