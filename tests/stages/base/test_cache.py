"""The cache gives back what was put under a key, from a folder and from an object store alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.base.cache import Cache


@pytest.mark.parametrize("remote", [False, True])
def test_what_was_put_under_a_key_is_found_again(tmp_path: Path, remote: bool) -> None:
    cache = Cache("memory://bucket/cache/signals" if remote else str(tmp_path / "cache"))
    key = Cache.key(family="tone", version=1, shard="ab" * 32)
    assert cache.get(key, ".parquet") is None
    made = tmp_path / "made"
    made.write_bytes(b"columns")
    cache.put(key, made, ".parquet")
    found = cache.get(key, ".parquet")
    assert found is not None
    assert found.read_bytes() == b"columns"
    assert cache.get(Cache.key(family="tone", version=2, shard="ab" * 32), ".parquet") is None


def test_a_key_depends_on_every_part_and_not_on_their_order() -> None:
    assert Cache.key(a=1, b=[2]) == Cache.key(b=[2], a=1)
    assert len({Cache.key(a=1), Cache.key(a=2), Cache.key(b=1), Cache.key(a="1")}) == 4


def test_a_half_written_entry_is_never_seen(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path))
    made = tmp_path / "made"
    made.write_bytes(b"x")
    key = Cache.key(a=1)
    cache.put(key, made)
    names = {path.name for path in (tmp_path / key[:2]).iterdir()}
    assert names == {key}
