"""PTB tokens of captions against the reference's, and by which way they were found."""

from __future__ import annotations

import gzip
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluate.metrics import java
from stages.evaluate.metrics.java import Unavailable
from stages.evaluate.metrics.ptb import by_rules, jar, plain
from stages.evaluate.metrics.ptb.rules import SEPARATORS, one_line
from stages.evaluate.metrics.ptb.tokenize import PtbTokenizer, tokenize

HARD = [
    "a letter K.",
    "an open <a b='",
    'an open <a b="',
    "Mr.",
    "plan no.",
    "1",
    "call 555",
    "x.[^x=",
    "Ph.",
    "...",
    "wait .",
    "'n",
    "it's the '90",
    "etc.",
    "a\rb",
    "line\vsep\fx",
    "ls\u2028x\u2029y",
    "",
]
NEXT = ["A cat", "Two cats", "1/2 cup", "5 dogs", "4567", "D. Smith", "'> <]", '">', ". .", "", "*NL*"]


def _has_java() -> bool:
    try:
        java.find_java()
        java.reference_file("tokenizer", "stanford-corenlp-3.4.1.jar")
    except Unavailable:
        return False
    return True


needs_java = pytest.mark.skipif(not _has_java(), reason="no Java here, or no jar of pycocoevalcap")


@pytest.fixture(scope="module")
def corpus(shared):
    with gzip.open(shared / "golden/captions_fakecap1000/data.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    java.find_java.cache_clear()
    yield
    java.find_java.cache_clear()


def _edge_cases(shared):
    return json.loads((shared / "golden/ptb_edge_cases.json").read_text())


def test_tokens_of_the_published_example_are_the_references(corpus):
    assert tokenize([d["cand"] for d in corpus]) == [d["cand_tok"] for d in corpus]
    references = [r for d in corpus for r in d["refs"]]
    assert tokenize(references) == [r for d in corpus for r in d["refs_tok"]]


@pytest.mark.parametrize("use_java", [pytest.param(True, marks=needs_java), False])
def test_edge_cases_and_a_line_separator_never_displaces_the_next_caption(shared, use_java):
    for case in _edge_cases(shared):
        tokens, following = PtbTokenizer(java=use_java).tokenize([case["raw"], "sentinel end"])
        assert following == "sentinel end"
        if case["next"] == ["sentinel end"]:
            assert tokens == case["tok"][0]
        else:  # the reference breaks the line here, and its next "caption" is what it left over
            spaced = case["raw"].translate(dict.fromkeys(map(ord, SEPARATORS), " "))
            assert tokens == " ".join(spaced.split())


@needs_java
def test_tokens_depend_on_the_caption_alone():
    alone = {caption: jar.tokens_of([one_line(caption)])[0] for caption in HARD}
    pairs = [(one_line(hard), after) for hard in HARD for after in NEXT]
    found = jar.tokens_of([line for pair in pairs for line in pair])[::2]
    assert found == [alone[hard] for hard in HARD for _ in NEXT]
    assert [by_rules.tokens_of(one_line(hard)) for hard in HARD] == list(alone.values())
    assert alone["a letter K."] == "a letter k"
    assert alone["ls\u2028x\u2029y"] == "ls x y"


@pytest.mark.parametrize("use_java", [pytest.param(True, marks=needs_java), False])
def test_order_duplicates_and_what_is_remembered_change_nothing(use_java):
    captions = [*HARD, *NEXT, "A man's dog.", "no. 5 of 1 1/2"]
    once = dict(zip(captions, PtbTokenizer(use_java).tokenize(captions), strict=True))
    shuffled = captions * 2
    random.Random(0).shuffle(shuffled)
    for remember in (0, 3, 1000):
        tokenizer = PtbTokenizer(use_java, remember)
        for _ in range(2):
            assert tokenizer.tokenize(shuffled) == [once[caption] for caption in shuffled]
        assert tokenizer.counts.all == 2 * len(shuffled)


@needs_java
def test_java_starts_once_for_all_captions_and_not_again_for_those_remembered(monkeypatch):
    sent = []
    real = jar.tokens_of
    monkeypatch.setattr(jar, "tokens_of", lambda lines: sent.append(list(lines)) or real(lines))
    tokenizer = PtbTokenizer()
    tokenizer.tokenize(["a letter K.", "a dog", "a.m.", "a letter K."])
    tokenizer.tokenize(["a.m.", "a dog"])
    assert sent == [["a letter K.", "a.m."]]
    assert tokenizer.counts.plain == 2
    assert tokenizer.counts.jar == 4
    assert "2 of 6 captions (33.3%) by the fast path, 4 by the CoreNLP 3.4.1 jar" in tokenizer.describe()


def test_without_java_the_rules_give_the_tokens_and_the_protocol_says_so(no_java, shared):
    cases = [case for case in _edge_cases(shared) if case["next"] == ["sentinel end"]]
    tokenizer = PtbTokenizer()
    assert tokenizer.tokenize([case["raw"] for case in cases]) == [case["tok"][0] for case in cases]
    assert tokenizer.counts.jar == 0
    assert "by Pairmill's rules (no Java found" in tokenizer.describe()


@pytest.mark.parametrize("script", ["exit 3", "cat", "exit 0", "echo 'a'; cat > /dev/null"])
def test_a_java_that_fails_or_babbles_leaves_the_scoring_alive(monkeypatch, tmp_path, script):
    program = tmp_path / "bin/java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    java.find_java.cache_clear()
    try:
        tokenizer = PtbTokenizer()
        assert tokenizer.tokenize(["a.m. on no. 5", "a dog"]) == ["a.m. on no. 5", "a dog"]
        assert "1 by Pairmill's rules (" in tokenizer.describe()
        assert "stanford-corenlp-3.4.1.jar" in tokenizer.describe()
    finally:
        java.find_java.cache_clear()


def test_words_of_one_reading_need_neither_jar_nor_rules():
    for caption in ("A man's dog, isn't it?", '(two black-and-white "cats" at 5:30)', "You cannot, gonna; wanna:"):
        assert plain.tokens_of([caption]) == [by_rules.tokens_of(caption)]


@pytest.mark.parametrize(
    "caption", ["plan B.", "Mr. X", "no. 5", "1 1/2", "call 555 1234", ":)", "(x_x)", "wow!!", "a.,", "'tis", "dunkin'"]
)
def test_words_of_more_than_one_reading_are_left_to_the_lexer(caption):
    assert plain.tokens_of([caption]) == [None]


@given(st.lists(st.text(max_size=60), max_size=4))
def test_any_caption_gives_one_line_of_tokens(captions):
    found = PtbTokenizer(java=False).tokenize(captions)
    assert len(found) == len(captions)
    assert all("\n" not in tokens and tokens == tokens.strip(" ") for tokens in found)
    assert found == [PtbTokenizer(java=False).tokenize([caption])[0] for caption in captions]


@needs_java
def test_captions_made_of_plain_words_and_marks_have_the_jars_tokens():
    draw = random.Random(1)
    words = (
        "a I X n d ol dog Mr no etc US EU-U com magazine gonna cannot isn't man's I'll pro-life w/o 2 10 555 2,000 5:30"
    )
    marks = [",", ".", "!", "?", ";", ":", '"', "(", ")", "'", "-", "...", " ", " ", " ", " ", "  ", "\n", "'s"]
    captions = []
    for _ in range(30_000):
        parts = [draw.choice(words.split()) + draw.choice(marks) + draw.choice(["", " ", " "]) for _ in range(5)]
        captions.append("".join(parts[: draw.randint(1, 5)]))
    lines = [one_line(caption) for caption in captions]
    found = plain.tokens_of(lines)
    ours = [(line, tokens) for line, tokens in zip(lines, found, strict=True) if tokens is not None]
    assert len(ours) > 5_000
    assert [tokens for _, tokens in ours] == jar.tokens_of([line for line, _ in ours])
