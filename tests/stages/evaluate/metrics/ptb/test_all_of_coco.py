"""All captions of COCO through the reference exactly as pycocoevalcap runs it."""

from __future__ import annotations

import json
import zipfile

import pytest

from stages.evaluate.metrics.java import Unavailable, find_java, reference_file
from stages.evaluate.metrics.ptb import by_rules, jar
from stages.evaluate.metrics.ptb.rules import one_line
from stages.evaluate.metrics.ptb.tokenize import PtbTokenizer

CAPTIONS = 616_767
PLAIN = 615_400
"""Captions that take the fast path."""
BY_THE_NEXT = 5
"""Captions that end in a lone letter and a full stop, before a caption that does not begin like a sentence."""


@pytest.fixture(scope="module")
def captions() -> list[str]:
    try:
        find_java()
        archive = zipfile.ZipFile(reference_file("spice", "spice-1.0.jar"))
    except Unavailable as error:
        pytest.skip(str(error))
    found: list[str] = []
    for part in ("train", "val"):
        annotations = json.loads(archive.read(f"coco/annotations/captions_{part}2014.json"))["annotations"]
        found += [annotation["caption"] for annotation in annotations]
    assert len(found) == CAPTIONS
    return found


@pytest.mark.slow
def test_every_caption_of_coco_has_the_references_tokens(captions, capsys):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    run = PTBTokenizer().tokenize({number: [{"caption": caption}] for number, caption in enumerate(captions)})
    references = [run[number][0] for number in range(len(captions))]
    tokenizer = PtbTokenizer()
    ours = tokenizer.tokenize(captions)
    with capsys.disabled():
        print(f"\n{tokenizer.describe()}")
    assert tokenizer.counts.plain == PLAIN
    assert tokenizer.counts.rules == 0
    others = [i for i, (found, reference) in enumerate(zip(ours, references, strict=True)) if found != reference]
    assert len(others) == BY_THE_NEXT
    assert [ours[i] for i in others] == jar.tokens_of([one_line(captions[i]) for i in others])
    for i in others:
        assert captions[i][-3] == " "
        assert captions[i].endswith(".")
        assert f"{ours[i]}." == references[i]


@pytest.mark.slow
def test_the_fast_path_and_the_rules_say_of_every_caption_of_coco_what_the_jar_says(captions):
    lines = [one_line(caption) for caption in captions]
    by_jar = jar.tokens_of(lines)
    assert PtbTokenizer(java=False).tokenize(captions) == by_jar
    assert [by_rules.tokens_of(line) for line in lines[::50]] == by_jar[::50]
