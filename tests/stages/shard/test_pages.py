"""Remote shards are read through a cache that never outgrows its bound, whatever happens and however many read."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.shard.check import check, check_shard
from stages.shard.pages import PageCache, page_cache
from stages.shard.reader import DamagedShard, ShardReader
from stages.shard.verify import missing_or_short


@dataclass
class Server:
    """A web server with byte ranges, ETags and folder listings, as object stores have them."""

    folder: Path
    url: str = ""
    ranges: list[tuple[str, str]] = field(default_factory=list)
    """(path, range) of every request for bytes."""
    fail: int = 0
    """So many requests for bytes fail first."""

    def run(self, ready: threading.Event) -> None:
        from aiohttp import web

        @web.middleware
        async def seen(request: web.Request, handler: Callable[..., Any]) -> Any:
            if "Range" in request.headers and request.method == "GET":
                self.ranges.append((request.path, request.headers["Range"]))
                if self.fail:
                    self.fail -= 1
                    raise web.HTTPServiceUnavailable
            return await handler(request)

        async def serve() -> None:
            app = web.Application(middlewares=[seen])
            app.router.add_static("/", self.folder, show_index=True)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
            ready.set()
            await self._stop.wait()
            await runner.cleanup()

        asyncio.run(serve())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "www").mkdir()
    server, ready = Server(tmp_path / "www"), threading.Event()
    thread = threading.Thread(target=server.run, args=(ready,))
    thread.start()
    assert ready.wait(10)
    yield server
    server.close()
    thread.join(10)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PageCache:
    """The cache as readers find it: pages of 4 KiB, at most 10 of them."""
    monkeypatch.setenv("PAIRMILL_CACHE", str(tmp_path / "cache"))
    cache = PageCache(tmp_path / "cache" / "pages", 40_960, 4096)
    monkeypatch.setattr("stages.shard.files.page_cache", lambda: cache)
    return cache


def test_a_remote_artifact_reads_like_the_local_one_within_the_bound(
    world: Any, shard: Callable[..., Artifact], server: Server, cache: PageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.shard.files._PAUSE_SECONDS", 0.01)
    local = shard(world.inputs())
    shutil.copytree(local.url, server.folder / "shards")
    here, there = ShardReader(local), ShardReader(f"{server.url}/shards")
    for i in np.random.default_rng(0).permutation(len(here)):
        assert there.sample(int(i)) == here.sample(int(i))
        assert cache.held() <= cache.bound
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= cache.bound
    before = len(server.ranges)
    assert there.sample(0) == there.sample(0)
    assert len(server.ranges) <= before + 3  # and from the cache the second time
    assert missing_or_short(there) == []
    assert check(there, lambda numbers, flag: (check_shard(there, n, flag) for n in numbers)).problems == []
    server.fail = 2
    shutil.rmtree(cache.folder)
    assert there.sample(3) == here.sample(3)  # a request to a busy store is repeated
    (server.folder / "shards" / "train-00001.tar").unlink()
    fresh = ShardReader(f"{server.url}/shards")
    assert [fault.name for fault in missing_or_short(fresh)] == ["train-00001.tar"]
    with pytest.raises(DamagedShard, match=rf"{re.escape(server.url)}/shards: shard train-00001\.tar, .* is missing"):
        fresh.sample(7)


def test_a_store_that_fails_is_no_damage_and_is_named(
    world: Any, shard: Callable[..., Artifact], server: Server, cache: PageCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.shard.files._PAUSE_SECONDS", 0.01)
    shutil.copytree(shard(world.inputs()).url, server.folder / "shards")
    server.fail = 1000
    with pytest.raises(OSError, match=rf"{re.escape(server.url)}/shards: shard train-00000\.tar, sample .*503"):
        ShardReader(f"{server.url}/shards").sample(0)
    assert list(cache.folder.glob("*.part")) == []


def test_a_shard_that_was_written_anew_is_not_read_from_old_pages(
    world: Any, shard: Callable[..., Artifact], server: Server, cache: PageCache
) -> None:
    inputs = world.inputs()
    first, second = shard(inputs, seed=1), shard(inputs, seed=2)
    target = server.folder / "shards"
    shutil.copytree(first.url, target)
    assert ShardReader(f"{server.url}/shards").sample(0) == ShardReader(first).sample(0)
    shutil.rmtree(target)
    shutil.copytree(second.url, target)
    for path in target.iterdir():
        os.utime(path, (2e9, 2e9))
    assert ShardReader(f"{server.url}/shards").sample(0) == ShardReader(second).sample(0)


def test_foreign_tars_in_a_store_are_indexed_on_the_fly(server: Server, cache: PageCache) -> None:
    from webdataset import TarWriter

    with TarWriter(str(server.folder / "a.tar")) as tar:
        for n in range(20):
            tar.write({"__key__": f"{n:03}", "jpg": bytes([n]) * 3000, "txt": str(n)})
    reader = ShardReader(server.url)
    assert [(s.caption, s.image_bytes) for s in reader.iterate(0)] == [(str(n), bytes([n]) * 3000) for n in range(20)]
    assert cache.held() <= cache.bound


@settings(max_examples=30, deadline=None)
@given(data=st.data(), size=st.integers(0, 400), page=st.integers(1, 64))
def test_any_range_comes_back_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, size: int, page: int
) -> None:
    content = np.random.default_rng(size).bytes(size)
    cache = PageCache(tmp_path_factory.mktemp("pages"), 3 * page, page)
    for offset, length in data.draw(st.lists(st.tuples(st.integers(0, 450), st.integers(0, 450)), max_size=8)):
        assert cache.read("key", size, offset, length, lambda a, b: content[a:b]) == content[offset : offset + length]
        assert cache.held() <= 3 * page


def reading(folder: Path, seed: int, log: Path) -> None:
    """A process that reads here and there, and writes down what it had to fetch."""
    cache = PageCache(folder, 40_000, 1000)
    content = np.random.default_rng(0).bytes(100_000)

    def fetch(start: int, stop: int) -> bytes:
        with open(log, "a") as file:
            file.write(f"{start}\n")
        return content[start:stop]

    # All begin with the same pages at the same time; then each goes its way over more than the cache holds.
    places = [*range(0, 30_000, 500), *map(int, np.random.default_rng(seed).integers(0, 99_000, 100))]
    for place in places:
        assert cache.read("key", len(content), place, 900, fetch) == content[place : place + 900]
        assert cache.held() <= 40_000


def test_processes_share_pages_and_the_bound(tmp_path: Path) -> None:
    folder, log = tmp_path / "pages", tmp_path / "log"
    context = multiprocessing.get_context("fork")
    # What a killed process left behind: a page half fetched.
    folder.mkdir()
    (folder / "left-000000.part").write_bytes(b"half")
    processes = [context.Process(target=reading, args=(folder, seed, log)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(path.suffix for path in folder.iterdir() if path.suffix != ".page") == [""]  # the lock
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 40_000
    fetched = [int(line) for line in log.read_text().split()]
    first = fetched[:30]
    assert len(set(first)) == len(first)  # the common beginning was fetched once


@pytest.mark.parametrize("bound", ["much", "-1", "0", "0.001", "nan"])
def test_an_invalid_bound_is_refused(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAIRMILL_CACHE_GB", bound)
    with pytest.raises(UserError, match=rf"PAIRMILL_CACHE_GB={re.escape(bound)}: .* at least 0\.034"):
        page_cache()
