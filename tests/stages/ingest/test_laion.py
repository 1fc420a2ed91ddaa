"""LAION: the spellings of its releases, values parquet can hold, row groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.base.contract import UserError


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
    with pytest.raises(UserError, match=r"part.parquet \(no column URL or url .*set sources.test.url_column"):
        ingest({"kind": "laion", "paths": [path]})
    assert ingest({"kind": "laion", "paths": [path], "url_column": "link"}).counts["pairs"] == 1


@pytest.mark.parametrize(
    ("release", "columns"),
    [
        (
            "400m",
            {"SAMPLE_ID": 1.0, "LICENSE": "?", "NSFW": "UNLIKELY", "similarity": 0.3, "WIDTH": 3.0, "HEIGHT": 4.0},
        ),
        ("2b_en", {"WIDTH": 3, "HEIGHT": 4, "similarity": 0.3, "hash": -5, "punsafe": 0.1, "pwatermark": 0.2}),
        ("2b_multi", {"WIDTH": 3, "HEIGHT": 4, "similarity": 0.3, "LANGUAGE": "ko", "hash": 5, "pwatermark": 0.2}),
        ("aesthetics", {"similarity": 0.3, "punsafe": 0.1, "pwatermark": 0.2, "AESTHETIC_SCORE": 6.5, "hash": 1}),
        ("aesthetics_prob", {"similarity": 0.3, "prob": 6.5, "hash": 1, "__index_level_0__": 7}),
    ],
)
def test_columns_of_every_release_are_carried_along(
    ingest: Any, pairs: Any, tmp_path: Path, release: str, columns: dict[str, Any]
) -> None:
    listed = {"URL": ["http://x.test/1.jpg"], "TEXT": ["a cat"], **{name: [value] for name, value in columns.items()}}
    (row,) = pairs(ingest({"kind": "laion", "paths": [_write(tmp_path / f"{release}.parquet", listed)]}))
    assert row["license"] == columns.pop("LICENSE", None)
    assert json.loads(row["meta"]) == columns


def test_datacomp_gives_the_digest_that_the_download_checks(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    columns = {
        "uid": ["a" * 32, "b" * 32],
        "url": ["http://x.test/1.jpg", "http://x.test/2.jpg"],
        "text": ["a cat", "a dog"],
        "original_width": [640, None],
        "clip_b32_similarity_score": pa.array([0.25, float("nan")], pa.float32()),
        "face_bboxes": [[[0.1, 0.2, 0.3, 0.4]], []],
        "sha256": ["AB" * 32, "not a digest"],
    }
    rows = pairs(ingest({"kind": "datacomp", "paths": [_write(tmp_path / "d.parquet", columns)]}))
    meta = {row["caption"]: json.loads(row["meta"]) for row in rows}
    assert meta["a cat"] == {
        "uid": "a" * 32,
        "original_width": 640,
        "clip_b32_similarity_score": 0.25,
        "face_bboxes": [[0.1, 0.2, 0.3, 0.4]],
        "sha256": "ab" * 32,
    }
    assert meta["a dog"]["sha256"] is None
    assert meta["a dog"]["clip_b32_similarity_score"] is None


def test_values_that_python_has_no_room_for_cost_nothing(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    columns = {
        "URL": pa.array(["http://x.test/1.jpg"]).dictionary_encode(),
        "TEXT": pa.array([b"a cat"], pa.large_binary()),
        "when": pa.array([2**62], pa.timestamp("us")),
        "day": pa.array([2**31 - 1], pa.date32()),
        "nanoseconds": pa.array([1], pa.timestamp("ns", "UTC")),
        "took": pa.array([2**62], pa.duration("us")),
        "price": pa.array(["1.50"]).cast(pa.decimal128(5, 2)),
        "half": pa.array([0.5], pa.float16()),
        "tags": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        "nothing": pa.nulls(1),
        "flag": [True],
        "nested": [{"a": [float("nan")], "b": b"\xff"}],
    }
    (row,) = pairs(ingest({"kind": "laion", "paths": [_write(tmp_path / "l.parquet", columns)]}))
    meta = json.loads(row["meta"])
    assert row["caption"] == "a cat"
    assert (meta["price"], meta["half"], meta["flag"], meta["nothing"]) == ("1.50", 0.5, True, None)
    assert meta["nested"] == {"a": [None], "b": "\ufffd"}


def test_a_column_listed_twice_is_kept_once(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["http://x.test/1.jpg"]), pa.array(["a"]), pa.array([1]), pa.array([2])], ["URL", "TEXT", "n", "n"]
    )
    pq.write_table(table, tmp_path / "l.parquet")
    (row,) = pairs(ingest({"kind": "laion", "paths": [str(tmp_path / "l.parquet")]}))
    assert row["meta"] == '{"n":1}'
