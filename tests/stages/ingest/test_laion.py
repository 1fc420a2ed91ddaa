"""LAION: the spellings of its releases, values parquet can hold, row groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.contract import UserError


def _write(path: Path, columns: dict[str, Any], **options: Any) -> str:
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


@pytest.mark.parametrize(
    ("url", "text"), [("URL", "TEXT"), ("url", "text"), ("url", "caption"), ("URL", "CAPTION"), ("URL", "caption")]
)
def test_columns_of_every_release_are_found(ingest: Any, pairs: Any, tmp_path: Path, url: str, text: str) -> None:
    path = _write(tmp_path / "part.parquet", {text: ["a cat"], "WIDTH": [3], url: ["http://x.test/1.jpg"]})
    (row,) = pairs(ingest({"kind": "laion", "paths": [path]}))
    assert (row["caption"], row["url"], json.loads(row["meta"])) == ("a cat", "http://x.test/1.jpg", {"WIDTH": 3})


def test_other_columns_are_kept_as_meta_and_nan_becomes_null(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    columns = {
        "URL": ["http://x.test/1.jpg"],
        "TEXT": ["a cat"],
        "LICENSE": ["cc-by"],
        "hash": [-(2**63)],
        "punsafe": [float("nan")],
        "similarity": [0.25],
        "boxes": [[[1.0, float("inf")]]],
        "digest": [b"\xff"],
    }
    (row,) = pairs(ingest({"kind": "laion", "paths": [_write(tmp_path / "part.parquet", columns)]}))
    assert row["license"] == "cc-by"
    assert json.loads(row["meta"]) == {
        "hash": -(2**63),
        "punsafe": None,
        "similarity": 0.25,
        "boxes": [[1.0, None]],
        "digest": "\ufffd",
    }


def test_null_and_undecodable_values_cost_their_own_row_only(
    ingest: Any, pairs: Any, rejects: Any, tmp_path: Path
) -> None:
    urls = pa.array(["http://x.test/1.jpg", None, "http://x.test/3.jpg", "http://x.test/4.jpg"])
    texts = pa.array([None, b"a dog", b"caf\xe9", b"a cat"], pa.binary()).view(pa.string())
    path = _write(tmp_path / "part.parquet", {"URL": urls, "TEXT": texts})
    artifact = ingest({"kind": "laion", "paths": [path]})
    assert [row["caption"] for row in pairs(artifact)] == ["a cat"]
    assert rejects(artifact) == [
        ("part.parquet", 0, "no_caption"),
        ("part.parquet", 1, "no_url"),
        ("part.parquet", 2, "not_utf8"),
    ]


def test_partitions_are_runs_of_row_groups_and_their_number_changes_no_byte(
    ingest: Any, contents: Any, rejects: Any, tmp_path: Path
) -> None:
    columns = {
        "URL": [f"http://x.test/{n % 40}.jpg" if n != 77 else None for n in range(100)],
        "TEXT": [f"caption {n % 60}" for n in range(100)],
    }
    path = _write(tmp_path / "part.parquet", columns, row_group_size=10)
    fields = {"kind": "laion", "paths": [path]}
    whole = ingest(fields, pairs_per_file=16)
    split = ingest(fields, pairs_per_file=16, rows_per_partition=15)
    assert contents(whole) == contents(split)
    assert rejects(split) == [("part.parquet", 77, "no_url")]


def test_a_file_without_the_columns_names_the_key_to_set(ingest: Any, tmp_path: Path) -> None:
    path = _write(tmp_path / "part.parquet", {"link": ["http://x.test"], "TEXT": ["a cat"]})
    with pytest.raises(UserError, match=r"part.parquet has no column URL or url .*set sources.test.url_column"):
        ingest({"kind": "laion", "paths": [path]})
    assert ingest({"kind": "laion", "paths": [path], "url_column": "link"}).counts["pairs"] == 1
