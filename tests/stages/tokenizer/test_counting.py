"""Counting by pieces gives what Hugging Face counts, and merges learnt from counts are those learnt from the text."""

from __future__ import annotations

import json
import zipfile
from itertools import chain, islice, pairwise

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.tokenizer.config import TokenizerConfig
from stages.tokenizer.counting import count_words, iter_counts, sum_counts, write_counts
from stages.tokenizer.load import LoadedTokenizer, load
from stages.tokenizer.pieces import PieceEncoder, can_split, texts_array
from stages.tokenizer.train import train, write

SCRIPTS = [
    "Всеобщая декларация прав человека принята в 1948 году.",
    "世界人権宣言 は 国連総会 で採択された。",
    "मानव अधिकारों की सार्वभौम घोषणा",
    "إعلان عالمي لحقوق الإنسان، ١٩٤٨",
    "세계 인권 선언 — it's 99.5% ‘done’",
    "don't   stop\tat\u00a0this,  or\u3000that \r\n\n x ",
    "👨‍👩‍👧 and e\u0301 ❤️ <loc_7> a<s>b",
    "ไทยไม่มีช่องว่าง ក្រុម ལྷ་ས",
]
ODD = st.text(
    st.sampled_from(list("ab1'st ré猫 .,!?  \t\n\r\u00a0\u2003\u200b\u180e\x1c\x85\ufeff\u0301<>/_")), max_size=30
)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def hugging_face(config: TokenizerConfig, texts: list[str]) -> dict:
    """Plain `train_from_iterator` on the same text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=config.added_tokens(),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(tokenizer.to_str())


@pytest.fixture(scope="module")
def coco() -> list[str]:
    """The first captions of COCO 2014, which ride in pycocoevalcap's jar."""
    from stages.world.demo.corpus import _captions

    try:
        return [" ".join(caption.split()) for caption in islice(_captions("val"), 20_000)]
    except zipfile.BadZipFile:
        pytest.skip("no COCO captions in this pycocoevalcap")


@settings(max_examples=50, deadline=None)
@given(st.lists(ODD | ANY, max_size=8))
@example(["a  b", " a", "a ", "a  ", "", " ", "it's a dog's", "a\nb", "\n", "x\u00a0 y"])
def test_words_are_counted_as_the_pre_tokenizer_cuts_them(texts):
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    expected: dict[str, int] = {}
    for word in chain.from_iterable(cut.pre_tokenize_str(text) for text in texts):
        expected[word[0]] = expected.get(word[0], 0) + 1
    assert dict(iter_counts(count_words([texts]))) == expected


@pytest.mark.parametrize("size", [700, 3000])
def test_merges_and_ids_equal_plain_training_on_coco_captions_and_on_many_scripts(coco, size):
    texts = [*coco, *SCRIPTS * 40]
    config = TokenizerConfig(vocabulary=size, task_tokens=["<caption>"])
    ours, theirs = json.loads(train(config, texts)), hugging_face(config, texts)
    assert ours["model"]["merges"] == theirs["model"]["merges"]
    assert ours["model"]["vocab"] == theirs["model"]["vocab"]
    assert ours["pre_tokenizer"] == theirs["pre_tokenizer"]
    assert len(theirs["model"]["vocab"]) == size


def test_counts_of_pieces_add_up_in_any_order(tmp_path, coco):
    texts = [*coco[:3000], *SCRIPTS]
    for name, step in (("few", 2000), ("many", 170)):
        (tmp_path / name).mkdir()
        for number, start in enumerate(range(0, len(texts), step)):
            write_counts(count_words([texts[start : start + step]]), tmp_path / name / f"words-{number:05d}.parquet")
    few, many = (sum_counts((tmp_path / name).iterdir()) for name in ("few", "many"))
    assert few.equals(many)
    assert many.equals(count_words([texts[::-1]]))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> tuple[LoadedTokenizer, PieceEncoder]:
    folder = tmp_path_factory.mktemp("tokenizer")
    config = TokenizerConfig(vocabulary=1500, allow_smaller=True, location_tokens=1000, task_tokens=["<caption>"])
    write(config, train(config, ["a bad stab at it, its best", "<caption> abs ab's"] * 9), folder)
    tokenizer = load(folder)
    assert can_split(tokenizer)
    return tokenizer, PieceEncoder(tokenizer)


@settings(max_examples=50, deadline=None)
@given(st.lists(ODD | ANY | st.sampled_from(["a <loc_7> b", "ab<caption> ab", "</s> a <s>", *SCRIPTS]), max_size=8))
def test_ids_by_pieces_are_the_ids_of_whole_texts(encoder, texts):
    tokenizer, pieces = encoder
    ids, offsets = pieces.encode(texts_array(texts))
    assert [ids[a:b].tolist() for a, b in pairwise(offsets)] == tokenizer.encode_batch(texts)


def test_a_tokenizer_that_looks_across_spaces_is_given_whole_texts(encoder):
    backend = Tokenizer.from_str(encoder[0].backend.to_str())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    other = LoadedTokenizer(backend)
    assert not can_split(other)
    ids, offsets = PieceEncoder(other).encode(texts_array(["a bad stab", "at"]))
    assert [ids[: offsets[1]].tolist(), ids[offsets[1] :].tolist()] == other.encode_batch(["a bad stab", "at"])


def test_an_empty_batch_has_no_words_and_no_ids(encoder):
    assert len(count_words([[]])) == 0
    ids, offsets = encoder[1].encode(pa.array([], pa.string()))
    assert (len(ids), offsets.tolist()) == (0, [0])
