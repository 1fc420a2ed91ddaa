"""Making METEOR's tables from the reference's data: apart, because only this needs pyarrow."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.evaluate.metrics.java import Unavailable
from stages.evaluate.metrics.meteor.lexicon import pack_numbers, pack_words
from stages.evaluate.metrics.meteor.normalize import read_prefixes
from stages.evaluate.metrics.meteor.sources import Sources
from stages.evaluate.metrics.meteor.synonyms import read_irregular, read_synsets
from stages.evaluate.metrics.meteor.trie import build_trie


def build(sources: Sources) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays for `container.write`. Raises Unavailable where the data is damaged."""
    try:
        vocabulary, tree = build_trie(sources.paraphrase_bytes())
    except ValueError as error:
        raise Unavailable(f"{sources.paraphrases}: {error}; reinstall pycocoevalcap==1.2") from None
    synsets = read_synsets(sources.text("synonym/english.synsets"))
    irregular = read_irregular(sources.text("synonym/english.exceptions"), synsets)
    header = {
        "function_words": sources.text("function/english.words").splitlines(),
        "prefixes": read_prefixes(sources.text("nonbreaking/english.prefixes")),
    }
    return header, {
        **tree,
        **pack_words(vocabulary, "vocabulary"),
        **pack_numbers(synsets, "synsets"),
        **pack_numbers(irregular, "irregular"),
    }
