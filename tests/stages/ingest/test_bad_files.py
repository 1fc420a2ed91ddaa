"""Bad files: recorded, tolerated up to a share, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.base.contract import UserError
from stages.ingest.files import InputFile, damage


def _lists(folder: Path, good: int, bad: int) -> list[str]:
    for n in range(good):
        pq.write_table(pa.table({"URL": [f"http://x.test/{n}.jpg"], "TEXT": ["a"]}), folder / f"good-{n:02d}.parquet")
    for n in range(bad):
        (folder / f"bad-{n:02d}.parquet").write_bytes(b"PAR1 not really")
    return [str(folder)]


@pytest.mark.parametrize(
    ("good", "bad", "share", "stops"),
    [
        (2, 1, 0.05, False),  # one of three
        (1, 1, 0.05, True),  # one of two
        (2, 1, 0.0, True),
        (38, 2, 0.05, False),
        (37, 3, 0.05, True),
        (1, 3, 0.75, False),
    ],
)
def test_bad_files_stop_the_stage_only_past_the_share(
    ingest: Any, tmp_path: Path, good: int, bad: int, share: float, stops: bool
) -> None:
    fields = {"kind": "laion", "paths": _lists(tmp_path, good, bad)}
    if not stops:
        counts = ingest(fields, max_bad_files=share).counts
        assert (counts["files"], counts["bad_files"], counts["pairs"]) == (good + bad, bad, good)
        return
    expected = rf"sources.test: {bad} of {good + bad} files cannot be read, .*=0.*bad-00.parquet .*sources.test.paths"
    with pytest.raises(UserError, match=expected):
        ingest(fields, max_bad_files=share)


def test_the_share_is_no_part_of_the_fingerprint(ingest: Any, tmp_path: Path) -> None:
    fields = {"kind": "laion", "paths": _lists(tmp_path, 3, 1)}
    assert ingest(fields, max_bad_files=0.5).fingerprint == ingest(fields, max_bad_files=0.9).fingerprint


def test_the_error_of_a_private_source_names_no_file(ingest: Any, tmp_path: Path) -> None:
    (tmp_path / "Doe_Jane.json").write_text("[]")
    with pytest.raises(UserError) as error:
        ingest({"kind": "coco", "paths": [str(tmp_path)], "private": True})
    assert "number 1 by name (wrong_structure)" in str(error.value)
    assert "Doe" not in str(error.value)


def test_rows_read_before_a_file_breaks_are_kept_and_the_row_it_broke_at_is_told(ingest: Any, tmp_path: Path) -> None:
    columns = {"URL": [f"http://x.test/{n}.jpg" for n in range(100)], "TEXT": ["a"] * 100}
    pq.write_table(pa.table(columns), tmp_path / "l.parquet", row_group_size=20, compression="zstd")
    footer = pq.read_metadata(tmp_path / "l.parquet")
    start = footer.row_group(3).column(0).dictionary_page_offset
    content = bytearray((tmp_path / "l.parquet").read_bytes())
    content[start : start + 60] = b"\xff" * 60
    (tmp_path / "l.parquet").write_bytes(content)
    _lists(tmp_path, 2, 0)
    artifact = ingest({"kind": "laion", "paths": [str(tmp_path)]}, rows_per_partition=20)
    (bad,) = pq.read_table(artifact.path("bad_files.parquet")).to_pylist()
    assert bad == {"file": "l.parquet", "row": 60, "reason": "damaged", "detail": "its bytes do not decode"}
    assert artifact.counts["rows"] == 82  # row groups 0, 1, 2 and 4 and the two good files


def test_a_failure_that_may_pass_is_not_written_down_as_a_bad_file() -> None:
    here, there = InputFile("l", "/data/l"), InputFile("l", "s3://bucket/l")
    assert damage(ConnectionResetError(104, "reset"), there) is None
    assert damage(TimeoutError(), there) is None
    assert damage(FileNotFoundError(2, "gone"), here) is None
    assert damage(OSError(5, "slow down"), there) is None
    assert damage(PermissionError(13, "no"), there) is None
    assert getattr(damage(PermissionError(13, "no"), here), "reason", "") == "unreadable"
    assert getattr(damage(OSError("Couldn't deserialize thrift"), there), "reason", "") == "damaged"


def test_every_list_file_is_accounted_for_with_its_rows_and_columns(ingest: Any, tmp_path: Path) -> None:
    one = pa.table({"URL": ["http://x.test/1.jpg", None], "TEXT": ["a cat", "b"], "WIDTH": [3, 4]})
    two = pa.table({"URL": ["http://x.test/2.jpg"], "TEXT": ["a dog"], "LANGUAGE": ["en"]})
    for name, table in (("a", one), ("b", one), ("c", two)):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=1)
    (tmp_path / "d.parquet").write_bytes(b"?")
    artifact = ingest({"kind": "laion", "paths": [str(tmp_path)]}, rows_per_partition=1)
    rows = pq.read_table(artifact.path("files.parquet")).to_pylist()
    size = (tmp_path / "a.parquet").stat().st_size
    assert rows[0] == {"file": "a.parquet", "bytes": size, "rows": 2, "pairs": 1, "schema": 0}
    assert [(row["file"], row["rows"], row["schema"]) for row in rows[1:]] == [
        ("b.parquet", 2, 0),
        ("c.parquet", 1, 1),
        ("d.parquet", 0, None),
    ]
    first, second = artifact.read_json("preview.json")["schemas"]
    assert first["columns"] == [
        {"name": "URL", "type": "string"},
        {"name": "TEXT", "type": "string"},
        {"name": "WIDTH", "type": "int64"},
    ]
    assert (first["files"], first["first_file"], second["files"]) == (2, "a.parquet", 1)


def test_the_preview_has_columns_and_no_values_that_would_have_to_be_forgotten(ingest: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,caption,age\n1.png,a broken arm,97\n")
    fields = {"kind": "table", "paths": [str(tmp_path / "t.csv")], "images": str(tmp_path)}
    artifact = ingest(fields)
    text = json.dumps(artifact.read_json("preview.json"))
    assert '"age"' in text
    assert not any(value in text for value in ("1.png", "broken", "97"))
