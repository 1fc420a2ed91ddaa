"""Captions that repeat a benchmark's texts."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.index.texts import Phrases, ngrams, overlaps, words

TEXT = "A man's dog, a brown one, runs over the wet sand."


def shares(captions: list[str], n: int = 5, **texts: list[str]) -> list[tuple[int, str, float]]:
    table = overlaps(pa.chunked_array([captions], pa.string()), Phrases.of(n, texts))
    return [(row["pair"], row["benchmark"], row["overlap"]) for row in table.to_pylist()]


def test_case_and_punctuation_do_not_count() -> None:
    assert words(TEXT) == ["a", "mans", "dog", "a", "brown", "one", "runs", "over", "the", "wet", "sand"]
    assert words("STRASSE, Straße_zwei—drei") == ["strasse", "strasse", "zwei", "drei"]
    assert shares(["a MANS dog a brown ONE; runs over the wet sand"], coco=[TEXT]) == [(0, "coco", 1.0)]


def test_overlap_is_the_share_of_the_captions_ngrams() -> None:
    caption = "runs over the wet sand and then it sleeps"  # 5 of 5-grams, one of them in the text
    assert shares([caption], coco=[TEXT]) == [(0, "coco", pytest.approx(1 / 5))]


def test_a_caption_shorter_than_an_ngram_never_counts() -> None:
    assert shares(["runs over the wet", "sand", ""], coco=[TEXT]) == []
    assert shares(["runs over the wet sand"], coco=[TEXT], n=6) == []


def test_every_benchmark_that_has_an_ngram_is_named_in_order() -> None:
    found = shares(["nothing of all that is here", TEXT], vqa=[TEXT, TEXT], coco=["runs over the wet sand"])
    assert [(pair, name) for pair, name, _ in found] == [(1, "coco"), (1, "vqa")]
    assert found[1][2] == 1


@given(st.text(), st.integers(3, 6))
def test_a_text_is_wholly_in_itself(text: str, n: int) -> None:
    found = shares([text], n=n, it=[text])
    assert found == ([(0, "it", 1.0)] if list(ngrams(text, n)) else [])
