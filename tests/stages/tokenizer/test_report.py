"""The report: right figures per corpus, script and tokenizer, and no text."""

from __future__ import annotations

import pytest

from stages.tokenizer.config import TokenizerConfig
from stages.tokenizer.measure import _text
from stages.tokenizer.scripts import ScriptDetector
from stages.tokenizer.stage import Tokenizer

TEXTS = ["two red cats", "a cat", "два красных кота", "二匹の猫、と犬", "12:30 !?", "naïve café"]


@pytest.fixture
def make(run_stage, corpus_inputs):
    def run(texts=TEXTS, private=(), **config):
        stage = Tokenizer(TokenizerConfig(**{"vocabulary": 280, "allow_smaller": True, **config}))
        return run_stage(stage, corpus_inputs({"web": texts}, private=private))

    return run


def test_figures_are_those_of_each_text_counted_by_hand(make):
    made = make()
    from stages.tokenizer.load import load

    ours = load(made.path())
    found = made.read_json("report.json")["corpora"]["web"]
    tokens = {text: len(ours.encode(text)) for text in TEXTS}
    assert {name: found["scripts"][name]["texts"] for name in found["scripts"]} == {
        "Latin": 3,
        "Cyrillic": 1,
        "Han": 1,
        "Common": 1,
    }
    assert found["tokens"] == sum(tokens.values())
    russian = found["scripts"]["Cyrillic"]
    assert (russian["words"], russian["characters"], russian["bytes"]) == (3, 16, 30)
    assert russian["fertility"] == tokens[TEXTS[2]] / 3
    assert russian["bytes_per_token"] == 30 / tokens[TEXTS[2]]
    assert found["round_trip_failed"] == found["unknown"] == 0
    words = [" cats", " cat", "a", "two"]  # leading spaces belong to words
    assert 0 <= found["one_token_words"] <= 1
    assert found["distinct_words"] >= len(words)


def test_every_text_is_measured_unless_checked_captions_sets_a_limit(make):
    assert make().read_json("report.json")["corpora"]["web"]["texts"] == len(TEXTS)
    assert make(checked_captions=4).read_json("report.json")["corpora"]["web"]["texts"] == 4
    none = make(checked_captions=0).read_json("report.json")
    assert (none["corpora"]["web"]["texts"], none["ids_used"]) == (0, 0)


def test_another_tokenizer_is_measured_beside_ours_on_the_same_texts(make, tmp_path):
    other = make(vocabulary=262)
    made = make(compare={"other": {"folder": str(other.path())}})
    beside = made.read_json("report.json")
    theirs = dict(beside["corpora"]["web"]["compared"]["other"])
    alone = other.read_json("report.json")["corpora"]["web"]
    assert theirs == {name: alone[name] for name in theirs}
    assert theirs["fertility"] > beside["corpora"]["web"]["fertility"]
    assert beside["compared"]["other"]["vocabulary"] == 262
    assert "| other |" in made.path("report.md").read_text()
    assert made.path("tokenizer.json").read_bytes() == make().path("tokenizer.json").read_bytes()


def test_where_a_compared_tokenizer_lies_does_not_count_but_its_files_do(make, tmp_path):
    from pipelines.fingerprint import fingerprinted

    folder = make().path()
    config = TokenizerConfig(vocabulary=300, compare={"other": {"folder": str(folder)}})
    assert str(folder) not in str(fingerprinted(config))
    assert str(folder / "tokenizer.json") in config.external_files()


def test_the_report_quotes_no_text(make):
    made = make([*TEXTS, *["Zyzzyva"] * 9], private=["web"])
    written = made.path("report.json").read_text() + made.path("report.md").read_text()
    assert not [word for word in ("yzz", "red cats", "красных", "猫") if word in written]


def test_the_script_of_a_text_is_that_of_most_letters():
    texts = ["abc", "абв a", "日本のひらがなです", "漢字", "123", "", "سلام", "a猫", "ไทย", "😀", "e\u0301"]
    names = [ScriptDetector.names[n] for n in ScriptDetector().detect(texts)]
    assert names == [
        *("Latin", "Cyrillic", "Hiragana", "Han", "Common", "Common", "Arabic", "Latin", "Thai", "Common", "Latin")
    ]


def test_the_byte_level_alphabet_is_read_back():
    from tokenizers import pre_tokenizers

    text = " naïve\n猫\u0000\u00ad\x7f😀"
    words = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    assert "".join(_text(word) for word, _ in words) == text
