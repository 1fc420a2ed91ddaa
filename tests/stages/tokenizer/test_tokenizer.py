"""What the tokenizer stage promises: exact size, fixed ids, equal bytes, text that comes back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.base.contract import UserError
from stages.base.external_files import addresses
from stages.tokenizer.config import TokenizerConfig
from stages.tokenizer.load import load
from stages.tokenizer.stage import Tokenizer

WORDS = [
    "a",
    "red",
    "green",
    "blue",
    "circle",
    "triangle",
    "rectangle",
    "photograph",
    "of",
    "two",
    "cats",
    "sitting",
    "beside",
    "an",
    "old",
    "wooden",
    "bench",
]
CAPTIONS = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS[:4]]


@pytest.fixture
def make(run_stage, corpus_inputs):
    def run(captions=CAPTIONS, **config):
        return run_stage(Tokenizer(TokenizerConfig(**config)), corpus_inputs({"web": captions}))

    return run


def test_vocabulary_is_exactly_as_configured_and_ids_follow_the_documented_order(make):
    artifact = make(vocabulary=1330, special_tokens=["<mask>"], task_tokens=["<caption>"], location_tokens=1000)
    content = artifact.read_json("tokenizer.json")
    ids = {token["content"]: token["id"] for token in content["added_tokens"]}
    assert [ids[t] for t in ("<pad>", "<s>", "</s>", "<mask>", "<caption>", "<loc_0>", "<loc_999>")] == [
        *range(5),
        5,
        1004,
    ]
    assert sorted(content["model"]["vocab"].values()) == list(range(1330))
    assert load(artifact.path()).vocabulary == 1330
    assert artifact.counts["vocabulary"] == 1330


def test_equal_text_gives_equal_bytes_however_it_is_cut_and_in_whatever_order_counted(
    run_stage, corpus_inputs, world_of_text
):
    text = "\n".join(["naïve  猫", "", *CAPTIONS[::-1], "the last line has no end"])
    inputs = {**corpus_inputs({"web": CAPTIONS, "shop": CAPTIONS[:99]}), "worlds": [world_of_text({"more.txt": text})]}

    def make(**options):
        config = {"vocabulary": 300, "text": ["world:demo/more.txt"], "max_captions": 700}
        return Tokenizer(TokenizerConfig(**config, **options))

    whole = run_stage(make(), inputs)
    cut, reverse = make(bytes_per_partition=997), make(bytes_per_partition=3001)
    assert len(cut.partitions(inputs)) > len(reverse.partitions(inputs)) > 3
    assert whole.counts["captions"] == 700
    for other in (run_stage(cut, inputs), run_stage(reverse, inputs, reverse=True)):
        assert other.manifest["files"] == whole.manifest["files"]
        assert other.counts == whole.counts


def test_too_little_text_is_an_error_that_names_the_reachable_size(make):
    with pytest.raises(UserError, match=r"vocabulary=5000 is out of reach.*set tokenizer.vocabulary=\d+") as error:
        make(vocabulary=5000)
    reachable = int(str(error.value).split("tokenizer.vocabulary=")[2].split()[0])
    assert 259 < reachable < 5000


def test_a_smaller_vocabulary_is_made_where_allowed(make):
    artifact = make(vocabulary=5000, allow_smaller=True)
    assert 259 < artifact.counts["vocabulary"] < 5000
    assert artifact.read_json("report.json")["vocabulary"] == artifact.counts["vocabulary"]


def test_dropped_captions_are_not_trained_on(make):
    artifact = make(captions=[*CAPTIONS, *["-zyzzyva zyzzyva"] * 50], vocabulary=300)
    assert artifact.counts["captions"] == len(CAPTIONS)
    assert not any("zyz" in token for token in artifact.read_json("tokenizer.json")["model"]["vocab"])


@pytest.mark.parametrize(("lines", "expected"), [(0, 0), (1, 1), (3, 2), (4, 3), (9, 3)])
def test_only_the_first_lines_of_a_text_file_are_trained_on(run_stage, corpus_inputs, world_of_text, lines, expected):
    inputs = {**corpus_inputs({"web": CAPTIONS}), "worlds": [world_of_text({"more.txt": "one\n\ntwo\nthree"})]}
    text = [{"path": "world:demo/more.txt"}]
    made = run_stage(Tokenizer(TokenizerConfig(vocabulary=300, text=text, max_text_lines=lines)), inputs)
    assert made.counts.get("text_lines", 0) == expected
    assert made.read_json("report.json")["corpora"]["more.txt"]["texts"] == expected


@pytest.mark.parametrize("most", [0, 1, 67, 150, len(CAPTIONS), len(CAPTIONS) + 5])
@pytest.mark.parametrize("range_rows", [1, 200])
def test_a_sample_of_the_captions_is_that_of_the_smallest_uids_over_all_sources(
    run_stage, corpus_inputs, most, range_rows
):
    import pyarrow.parquet as pq

    from stages.tokenizer import corpus

    half = len(CAPTIONS) // 2
    sources = {"web": CAPTIONS[:half], "shop": CAPTIONS[half:], "ward": ["-dropped"]}
    inputs = corpus_inputs(sources, files=3, range_rows=range_rows)
    config = TokenizerConfig(vocabulary=260, max_captions=most, allow_smaller=True)
    made = run_stage(Tokenizer(config), inputs)
    assert made.counts.get("captions", 0) == min(most, len(CAPTIONS))
    tables = [pq.read_table(pairs.path(name)) for pairs in inputs["pairs"] for name in pairs.names("pairs-*")]
    pairs = [row for table in tables for row in table.to_pylist()]
    kept = sorted((row["uid"], row["caption"]) for row in pairs if not row["caption"].startswith("-"))
    last = corpus.find_last_uid(config, inputs)
    opened = corpus.open_corpora(config, inputs, last)
    assert sorted(t for c in opened for batch in c.batches() for t in batch) == sorted(t for _, t in kept[:most])
    first = [t for batch in opened[0].batches(3) for t in batch]
    mine = [t for uid, t in kept[:most] if t in CAPTIONS[:half]]
    assert sorted(first) == sorted(mine[:3])


@pytest.mark.parametrize("most", [None, 100])
def test_images_without_text_are_no_captions(run_stage, corpus_inputs, most):
    config = TokenizerConfig(vocabulary=300, max_captions=most)
    alone = run_stage(Tokenizer(config), corpus_inputs({"web": CAPTIONS}))
    mixed = run_stage(Tokenizer(config), corpus_inputs({"images": [""] * 500, "web": CAPTIONS}))
    assert mixed.counts == alone.counts
    assert mixed.counts["captions"] == (most or len(CAPTIONS))
    assert {file["name"]: file["sha256"] for file in mixed.manifest["files"]} == {
        file["name"]: file["sha256"] for file in alone.manifest["files"]
    }


def test_images_alone_are_too_little_text(run_stage, corpus_inputs):
    with pytest.raises(UserError, match=r"the kept captions and tokenizer\.text allow 259"):
        run_stage(Tokenizer(TokenizerConfig(vocabulary=300)), corpus_inputs({"images": [""] * 5}))


def test_text_that_is_not_utf8_is_named_with_its_place(run_stage, corpus_inputs, tmp_path):
    (tmp_path / "old.txt").write_bytes(b"fine\nna\xefve\n")
    stage = Tokenizer(TokenizerConfig(vocabulary=300, text=[{"path": str(tmp_path / "old.txt")}]))
    with pytest.raises(UserError, match=r"old\.txt: not UTF-8 text at byte 7"):
        run_stage(stage, corpus_inputs({"web": CAPTIONS}))


def test_private_captions_are_not_even_counted(corpus_inputs):
    inputs = corpus_inputs({"web": CAPTIONS, "clinic": ["Zyzzyva"]}, private=["clinic"])
    closed, opened = (
        Tokenizer(TokenizerConfig(vocabulary=300, include_private=include)).partitions(inputs)
        for include in (False, True)
    )
    assert [len(closed), len(opened)] == [1, 2]


def test_private_captions_are_not_counted_in_a_range_of_several_sources(run_stage, corpus_inputs):
    sources = {"web": CAPTIONS, "clinic": ["Zyzzyva"] * 9, "images": [""] * 5}
    made = {}
    for include in (False, True):
        for range_rows in (1, 10**6):
            inputs = corpus_inputs(sources, private=["clinic"], files=2, range_rows=range_rows)
            config = TokenizerConfig(vocabulary=300, include_private=include)
            assert len(Tokenizer(config).partitions(inputs)) == (1 if range_rows > 1 else 4 if include else 2)
            made[include, range_rows] = run_stage(Tokenizer(config), inputs)
        assert made[include, 1].manifest["files"] == made[include, 10**6].manifest["files"]
    assert made[True, 1].counts["captions"] - made[False, 1].counts["captions"] == 9


def test_private_captions_leave_no_trace_unless_included(run_stage, corpus_inputs):
    inputs = corpus_inputs({"web": CAPTIONS, "clinic": ["Zyzzyva pneumothorax " * 9] * 60}, private=["clinic"])
    closed = run_stage(Tokenizer(TokenizerConfig(vocabulary=300)), inputs)
    assert "yzz" not in closed.path("tokenizer.json").read_text()
    assert "yzz" not in closed.path("report.json").read_text() + closed.path("report.md").read_text()
    assert closed.names() == ["report.json", "report.md", "tokenizer.json", "tokenizer_config.json"]
    figures = closed.read_json("report.json")["corpora"]["clinic"]
    assert figures["private"]
    assert not figures["trained_on"]
    opened = run_stage(Tokenizer(TokenizerConfig(vocabulary=300, include_private=True)), inputs)
    assert "yzz" in opened.path("tokenizer.json").read_text()


def test_text_files_of_a_world_are_trained_on(run_stage, corpus_inputs, world_of_text):
    config = TokenizerConfig(vocabulary=300, text=["world:demo/more.txt"], max_text_lines=60, max_captions=10)
    assert [str(address) for _, address in addresses(config)] == ["world:demo/more.txt"]
    assert config.external_files() == []
    inputs = {**corpus_inputs({"web": CAPTIONS}), "worlds": [world_of_text({"more.txt": "zyzzyva walks\n" * 99})]}
    artifact = run_stage(Tokenizer(config), inputs)
    assert artifact.counts == {"captions": 10, "text_lines": 60, "vocabulary": 300}
    assert "zyz" in artifact.path("tokenizer.json").read_text()


def test_a_missing_text_file_is_named(run_stage, corpus_inputs):
    stage = Tokenizer(TokenizerConfig(vocabulary=300, text=[{"path": "nowhere.txt"}]))
    with pytest.raises(UserError, match=r"tokenizer\.text: no file nowhere\.txt"):
        run_stage(stage, corpus_inputs({"web": CAPTIONS}))


def test_another_file_of_the_same_world_is_another_config():
    from pipelines.fingerprint import fingerprinted

    one, two = (
        fingerprinted(TokenizerConfig(vocabulary=300, text=[f"world:demo/{path}"])) for path in ("a.txt", "b.txt")
    )
    assert one != two
    local = [fingerprinted(TokenizerConfig(vocabulary=300, text=[{"path": path}])) for path in ("a.txt", "b.txt")]
    assert local[0] == local[1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vocabulary": 1000, "location_tokens": 1000}, "too small"),
        ({"vocabulary": 300, "task_tokens": ["<s>"]}, "named twice: <s>"),
        ({"vocabulary": 300, "special_tokens": [" "]}, "visible text"),
    ],
)
def test_impossible_token_lists_are_refused(config, message):
    with pytest.raises(ValidationError, match=message):
        TokenizerConfig(**config)


def test_transformers_loads_it_offline_and_agrees(make):
    from transformers import AutoTokenizer

    artifact = make(vocabulary=1330, location_tokens=1000, task_tokens=["<caption>"])
    theirs, ours = AutoTokenizer.from_pretrained(str(artifact.path())), load(artifact.path())
    text = "two red cats, naïve 猫 <loc_7>"
    assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)
    assert theirs.decode(ours.encode(text), skip_special_tokens=True) == text
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 2)
    assert len(theirs) == 1330


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from stages.tokenizer.train import train, write

    config = TokenizerConfig(vocabulary=1330, location_tokens=1000, special_tokens=["<mask>"])
    folder = tmp_path_factory.mktemp("tokenizer")
    write(config, train(config, CAPTIONS), folder)
    return load(folder)


@pytest.mark.parametrize(
    "text",
    ["", " ", "  two  spaces ", "日本語と한국어", "مرحبا שלום नमस्ते ไทย", "e\u0301 é", "👨‍👩‍👧 ❤️", "a\r\n\tb\x00c"],
)
def test_every_script_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch([text, "a cat"])[0] == tokenizer.encode(text)


def test_control_tokens_written_in_a_caption_are_plain_text(tokenizer):
    text = "<s>bold</s> <pad><mask>"
    ids = tokenizer.encode(text)
    assert min(ids) > 3
    assert tokenizer.decode(ids) == text


def test_locations_are_single_ids_and_control_ids_decode_to_nothing(tokenizer):
    ids = tokenizer.encode("a cat<loc_0><loc_999>")
    assert ids[-2:] == [tokenizer.token_id("<loc_0>"), tokenizer.token_id("<loc_999>")] == [4, 1003]
    assert tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id, 0, 0]) == "a cat<loc_0><loc_999>"
    with pytest.raises(KeyError):
        tokenizer.token_id("<loc_1000>")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a tokenizer"):
        load(tmp_path)


def test_report_counts_tokens_and_words(make):
    artifact = make(vocabulary=330)
    report = json.loads(artifact.path("report.json").read_text())
    figures = report["corpora"]["web"]
    assert figures["texts"] == len(CAPTIONS)
    assert figures["round_trip_failed"] == 0
    assert figures["fertility"] == figures["tokens"] / sum(len(c.split()) for c in CAPTIONS)
    assert report["merges"] == 330 - 3 - 256
