"""The index of shards: written batch by batch, and looked up without being read whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from stages.shard import index as indexing
from stages.shard.index import IndexRow, ShardIndex, index_schema, to_table, write_index


def rows_of(shard: int, count: int, source: str) -> list[IndexRow]:
    uids = [f"{shard:016x}{row:016x}" for row in range(count)]
    return [
        IndexRow(uid, uid, source if row % 3 else "first", shard, "jpg", row, 1, 2, 3, 4, -1, 1, 5, None, 7)
        for row, uid in enumerate(uids)
    ]


def at_once(path: Path, tables: list[pa.Table]) -> None:
    """The same file from one table of all rows."""
    table = pa.concat_tables([index_schema().empty_table(), *tables]).unify_dictionaries()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=indexing._BATCH)


@pytest.mark.parametrize("counts", [(), (5,), (8, 8), (3, 0, 21, 1, 8), (40,)])
def test_an_index_is_that_of_one_table_of_all_rows(
    counts: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_BATCH", 8)
    tables = [to_table(rows_of(shard, count, f"source {shard}")) for shard, count in enumerate(counts)]
    at_once(tmp_path / "expected", tables)
    listed = list(dict.fromkeys(name for table in tables for name in table["source"].to_pylist()))
    write_index(tmp_path / "index", iter(tables))
    write_index(tmp_path / "streamed", iter(tables), listed)
    assert (tmp_path / "index").read_bytes() == (tmp_path / "streamed").read_bytes()
    made, expected = (pa.ipc.open_file(str(tmp_path / name)) for name in ("index", "expected"))
    assert made.schema == expected.schema
    assert made.num_record_batches == expected.num_record_batches
    for number in range(made.num_record_batches):
        assert made.get_batch(number).equals(expected.get_batch(number))
        assert made.get_batch(number)["source"].dictionary.to_pylist() == listed
    if sum(counts) <= 8:  # the padding of several batches depends on how they were cut
        assert (tmp_path / "index").read_bytes() == (tmp_path / "expected").read_bytes()


def test_samples_are_found_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_BATCH", 4)
    rows = [row for shard, count in enumerate((3, 0, 9, 1, 4)) for row in rows_of(shard, count, "s")]
    write_index(tmp_path / "index", [to_table(rows)])
    index = ShardIndex.open(tmp_path / "index")
    assert len(index) == len(rows) == 17
    assert [index[i] for i in range(17)] == rows
    assert [index.of_shard(shard) for shard in range(-1, 6)] == [
        range(0),
        range(3),
        range(3, 3),
        range(3, 12),
        range(12, 13),
        range(13, 17),
        range(17, 17),
    ]
    assert [index.find(row.uid) for row in rows] == list(range(17))
    assert index.find("f" * 32) is None
    assert index.sources() == ["first", "s"]
    assert [table.num_rows for table in index.tables()] == [4, 4, 4, 4, 1]
    index.check_order()


@pytest.mark.parametrize("swapped", [(2, 9), (0, 16), (11, 12)])
def test_rows_that_are_not_in_shard_order_are_named(
    swapped: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_BATCH", 4)
    rows = [row for shard, count in enumerate((3, 0, 9, 1, 4)) for row in rows_of(shard, count, "s")]
    rows[swapped[0]], rows[swapped[1]] = rows[swapped[1]], rows[swapped[0]]
    first = next(i for i in range(1, 17) if rows[i].shard < rows[i - 1].shard)
    write_index(tmp_path / "index", [to_table(rows)])
    index = ShardIndex.open(tmp_path / "index")
    with pytest.raises(ValueError, match=rf"row {first} \(uid {rows[first].uid}\) is not in shard order"):
        index.check_order()
    with pytest.raises(ValueError, match=f"row {first} "):
        index[first]
