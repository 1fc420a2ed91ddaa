"""METEOR's tables and the parts that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.evaluate.metrics.meteor import container
from stages.evaluate.metrics.meteor.normalize import normalizer
from stages.evaluate.metrics.meteor.stemmer import stem
from stages.evaluate.metrics.meteor.tables import cache_folder, open_tables
from stages.evaluate.metrics.meteor.text import java_hash
from stages.evaluate.metrics.meteor.trie import build_trie


def test_the_tree_gives_paraphrases_in_the_lists_order() -> None:
    listed = b"0.1\na b\nc\n0.1\na b\nb a\n0.2\nc\na b c\n"
    vocabulary, arrays = build_trie(listed)
    assert vocabulary == [b"a", b"b", b"c"]
    # Level by level: a b c, "a b" "b a", "a b c".
    assert arrays["word"].tolist() == [0, 1, 2, 1, 0, 2]
    assert arrays["first_child"].tolist() == [0, 3, 4, 5, 5, 6, 6, 6]
    first, nodes = arrays["first_paraphrase"], arrays["paraphrase"]
    assert nodes[first[3] : first[4]].tolist() == [2, 4]
    assert nodes[first[2] : first[3]].tolist() == [5]


def test_a_list_that_ends_within_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="middle of an entry"):
        build_trie(b"0.1\na b\n")


def test_arrays_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "x.tables"
    arrays = {"a": np.arange(5, dtype=np.uint32), "none": np.empty(0, np.uint8), "b": np.array([1], np.uint8)}
    container.write(path, {"k": [1]}, arrays)
    header, found = container.read(path)
    assert header == {"k": [1]}
    assert {name: view.tolist() for name, view in found.items()} == {"a": [0, 1, 2, 3, 4], "none": [], "b": [1]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.tables"]


@pytest.mark.parametrize("keep", [0, 10, 40, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.tables"
    container.write(path, {}, {"a": np.arange(5, dtype=np.uint32)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"empty|not a file|cut short"):
        container.read(path)


def test_a_cache_that_cannot_be_made_falls_back_to_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PAIRMILL_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder().is_relative_to(tmp_path)
    monkeypatch.setenv("PAIRMILL_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache" / "meteor"


def test_words_share_synsets_by_their_base_form() -> None:
    synonyms = open_tables().synonyms
    assert synonyms.synsets("abaci") == synonyms.synsets("abacus")
    assert synonyms.synsets("horses") & synonyms.synsets("horse")
    assert not synonyms.synsets("zzzz")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man's U.S. flag, 3,000...", ["a", "man", "'s", "us", "flag", ",", "3,000", "..."]),
        ("x-ray vs. the rock'n'roll", ["x", "ray", "vs.", "the", "rock", "'n'roll"]),
        ("", []),
    ],
)
def test_text_is_normalized_as_by_the_reference(text: str, words: list[str]) -> None:
    assert normalizer({"vs": False})(text) == words


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("generously", "generous"),
        ("flying", "fli"),
        ("skies", "sky"),
        ("evenings", "even"),
        ("'tis", "tis"),
        ("y", "y"),
    ],
)
def test_words_are_stemmed_as_in_2010(word: str, expected: str) -> None:
    assert stem(word) == expected


def test_hashes_are_javas() -> None:
    assert java_hash("hello") == 99162322
    assert java_hash("\U0001f600") == 1772899
    assert java_hash("polygenelubricants") == 0x80000000
