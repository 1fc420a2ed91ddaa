"""Conceptual Captions: column order, no quoting, byte ranges that cut no line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.ingest.conceptual import ConceptualCaptions3M, ConceptualConfig
from stages.ingest.config import IngestSettings
from stages.ingest.source import Pair


def test_cc3m_lists_the_caption_first_and_cc12m_the_url(ingest: Any, pairs: Any, tsv: Any) -> None:
    three = ingest({"kind": "cc3m", "paths": [tsv(b"a red kite\thttp://x.test/1.jpg", name="3.tsv")]})
    twelve = ingest({"kind": "cc12m", "paths": [tsv(b"http://x.test/1.jpg\ta red kite", name="12.tsv")]})
    wanted = ("a red kite", "http://x.test/1.jpg")
    assert [(row["caption"], row["url"]) for row in pairs(three)] == [wanted]
    assert [(row["caption"], row["url"]) for row in pairs(twelve)] == [wanted]


def test_an_unbalanced_quote_is_a_character_of_its_caption_and_swallows_no_line(
    ingest: Any, pairs: Any, tsv: Any
) -> None:
    path = tsv(b'"the film\thttp://x.test/1.jpg', b"a dog\thttp://x.test/2.jpg", b'6" pipe\thttp://x.test/3.jpg')
    captions = {row["caption"] for row in pairs(ingest({"kind": "cc3m", "paths": [path]}))}
    assert captions == {'"the film', "a dog", '6" pipe'}


def test_only_a_line_feed_ends_a_row(ingest: Any, pairs: Any, tsv: Any) -> None:
    path = tsv("one\u2028two\x0bthree\x85four\thttp://x.test/1.jpg".encode(), b"b\thttp://x.test/2.jpg\r")
    rows = pairs(ingest({"kind": "cc3m", "paths": [path]}))
    assert {(r["caption"], r["url"]) for r in rows} == {
        ("one\u2028two\x0bthree\x85four", "http://x.test/1.jpg"),
        ("b", "http://x.test/2.jpg"),
    }


def test_bad_rows_are_recorded_by_file_and_row_and_stop_nothing(
    ingest: Any, pairs: Any, rejects: Any, tsv: Any
) -> None:
    path = tsv(
        b"no tab",
        b"a cat\thttp://x.test/1.jpg",
        b"a\tb\thttp://x.test/2.jpg",
        b"caf\xe9\thttp://x.test/3.jpg",
        b" \thttp://x.test/4.jpg",
        b"a caption\t",
        b"a caption\tftp://x.test/5.jpg",
        b"a caption\thttp://[bad/5.jpg",
        b"",
    )
    # Ranges of 20 bytes: row numbers must be those of the file, not of the range.
    artifact = ingest({"kind": "cc3m", "paths": [path]}, bytes_per_partition=20)
    assert [row["caption"] for row in pairs(artifact)] == ["a cat"]
    assert rejects(artifact) == [
        ("list.tsv", 0, "not_two_columns"),
        ("list.tsv", 2, "not_two_columns"),
        ("list.tsv", 3, "not_utf8"),
        ("list.tsv", 4, "no_caption"),
        ("list.tsv", 5, "no_url"),
        ("list.tsv", 6, "other_scheme"),
        ("list.tsv", 7, "bad_url"),
        ("list.tsv", 8, "not_two_columns"),
    ]
    assert artifact.counts == {
        "rows": 9,
        "rejects": 8,
        "pairs": 1,
        "images": 1,
        "repeats": 0,
        "files": 1,
        "bad_files": 0,
    }


def test_a_list_without_any_pair_is_refused_with_a_hint(ingest: Any, tsv: Any) -> None:
    with pytest.raises(UserError, match=r"none of 2 rows is a pair .mostly relative_url.*kind=cc12m"):
        ingest({"kind": "cc12m", "paths": [tsv(b"a cat\thttp://x.test/1", b"a dog\thttp://x.test/2")]})


def test_a_compressed_list_is_read(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    path = tmp_path / "list.tsv.gz"
    path.write_bytes(gzip.compress(b"a cat\thttp://x.test/1.jpg\n"))
    assert [row["caption"] for row in pairs(ingest({"kind": "cc3m", "paths": [str(path)]}))] == ["a cat"]


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(
        st.text(st.characters(exclude_characters="\n\r\t", exclude_categories=("Cs",)), max_size=12), max_size=12
    ),
    step=st.integers(1, 40),
    ended=st.booleans(),
)
def test_byte_ranges_of_any_size_give_every_line_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], step: int, ended: bool
) -> None:
    path = tmp_path_factory.mktemp("list") / "list.tsv"
    path.write_bytes("\n".join(f"{line}\tu" for line in lines).encode() + (b"\n" if ended and lines else b""))
    config = ConceptualConfig(kind="cc3m", paths=(str(path),))
    source = ConceptualCaptions3M("test", config, IngestSettings(bytes_per_partition=step))
    items = [item for unit in source.splits(source.files()) for item in source.read(unit)]
    assert [item.caption for item in items if isinstance(item, Pair)] == lines


def test_result_does_not_depend_on_where_the_list_lies_or_the_order_of_work(
    ingest: Callable[..., Artifact], contents: Any, tmp_path: Path
) -> None:
    lines = b"".join(f"caption {n}\thttp://x.test/{n % 7}.jpg\n".encode() for n in range(50))
    for folder in ("a", "b/c"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "list.tsv").write_bytes(lines)
    one = ingest({"kind": "cc3m", "paths": [str(tmp_path / "a/list.tsv")]}, bytes_per_partition=100)
    two = ingest({"kind": "cc3m", "paths": [str(tmp_path / "b/c/*.tsv")]}, bytes_per_partition=100, reverse=True)
    assert contents(one) == contents(two)
    assert one.fingerprint == two.fingerprint
