"""Lists anywhere: object stores through fsspec, every compression, lines of any length."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.base.contract import UserError
from stages.ingest import text_files as lines_module
from stages.ingest.files import InputFile
from stages.ingest.source import Unit
from stages.ingest.text_files import lines

TSV = b"a red kite\thttp://x.test/1.jpg\n" * 3


@pytest.fixture
def bucket() -> Iterator[str]:
    """A folder of an fsspec protocol that is no local path."""
    store = fsspec.filesystem("memory")
    store.mkdirs("/lists", exist_ok=True)
    yield "memory://lists"
    store.rm("/lists", recursive=True)


def _put(url: str, content: bytes) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(content)


def test_lists_in_an_object_store_are_read_like_local_ones(
    ingest: Any, contents: Any, tmp_path: Path, bucket: str
) -> None:
    for n in range(3):
        content = "".join(f"caption {n} {k}\thttp://x.test/{n}/{k}.jpg\n" for k in range(40)).encode()
        _put(f"{bucket}/deep/{n}.tsv", content)
        (tmp_path / f"{n}.tsv").write_bytes(content)
    local = ingest({"kind": "cc3m", "paths": [str(tmp_path)]}, bytes_per_partition=300)
    for paths in (["memory://lists/**/*.tsv"], [f"{bucket}/deep"], [f"{bucket}/deep/{n}.tsv" for n in range(3)]):
        assert contents(ingest({"kind": "cc3m", "paths": paths}, bytes_per_partition=300)) == contents(local)


def test_parquet_and_json_lists_in_an_object_store_are_read(ingest: Any, pairs: Any, bucket: str) -> None:
    out = io.BytesIO()
    pq.write_table(
        pa.table({"URL": ["http://x.test/1.jpg"] * 9, "TEXT": [f"c{n}" for n in range(9)]}), out, row_group_size=2
    )
    _put(f"{bucket}/l.parquet", out.getvalue())
    assert len(pairs(ingest({"kind": "laion", "paths": [f"{bucket}/*.parquet"]}, rows_per_partition=2))) == 9
    _put(f"{bucket}/t.jsonl.gz", gzip.compress(b'{"url": "http://x.test/1.jpg", "caption": "a"}\n'))
    assert len(pairs(ingest({"kind": "table", "paths": [f"{bucket}/t.jsonl.gz"]}))) == 1


def test_a_pattern_that_finds_nothing_in_an_object_store_names_its_key(ingest: Any, bucket: str) -> None:
    _put(f"{bucket}/l.tsv", TSV)
    with pytest.raises(UserError, match=r"sources.test.paths: nothing at memory://lists/\*.parquet"):
        ingest({"kind": "laion", "paths": [f"{bucket}/*.parquet"]})


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("ending", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_every_compression_is_read_in_lines(tmp_path: Path, bucket: str, ending: str, remote: bool) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    packed = pa.compress(TSV, "zstd", asbytes=True) if ending == ".zst" else pack[ending](TSV)
    url = f"{bucket}/l.tsv{ending}" if remote else str(tmp_path / f"l.tsv{ending}")
    _put(url, packed)
    unit = Unit((InputFile(f"l.tsv{ending}", url),))
    assert list(lines(unit)) == TSV.rstrip().split(b"\n")


def test_a_line_without_end_is_skipped_and_not_held(
    ingest: Any, rejects: Any, pairs: Any, tsv: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "LONGEST", 100)
    path = tsv(b"x" * 1_000, TSV.split(b"\n")[0], b"y" * 99, b"z" * 100)
    for step in (150, 10_000):
        artifact = ingest({"kind": "cc3m", "paths": [path]}, bytes_per_partition=step)
        assert [reason for _, _, reason in rejects(artifact)] == ["line_too_long", "not_two_columns", "line_too_long"]
        assert len(pairs(artifact)) == 1
