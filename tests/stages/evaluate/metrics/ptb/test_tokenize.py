"""PTB tokens of captions against the reference's."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluate.metrics.ptb.tokenize import tokenize


@pytest.fixture(scope="module")
def corpus(shared):
    with gzip.open(shared / "golden/captions_fakecap1000/data.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_tokens_of_the_published_example_are_the_references(corpus):
    assert tokenize([d["cand"] for d in corpus]) == [d["cand_tok"] for d in corpus]
    references = [r for d in corpus for r in d["refs"]]
    assert tokenize(references) == [r for d in corpus for r in d["refs_tok"]]


def test_edge_cases_and_a_line_separator_never_displaces_the_next_caption(shared):
    for case in json.loads((shared / "golden/ptb_edge_cases.json").read_text()):
        tokens, following = tokenize([case["raw"], "sentinel end"])
        assert following == "sentinel end"
        # Where the reference displaces the next caption, its own tokens stop at the separator.
        assert tokens == case["tok"][0] if case["next"] == ["sentinel end"] else tokens.startswith(case["tok"][0])


@given(st.lists(st.text(max_size=60), max_size=4))
def test_any_caption_gives_one_line_of_tokens(captions):
    found = tokenize(captions)
    assert len(found) == len(captions)
    assert all("\n" not in tokens and tokens == tokens.strip(" ") for tokens in found)
