"""A URL that several sources list is fetched once, and nothing of a private source is shared."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stages.base.tombstones import Tombstones, url_digest
from stages.download.shared_urls import UrlEntry

URLS = [f"http://a.test/{n}.jpg" for n in range(20)]


@pytest.fixture
def photographs(web: Any, make_picture: Callable[..., bytes]) -> Any:
    """Twenty photographs, one of which is turned by EXIF; and what cannot be fetched."""
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6
    for n in range(20):
        web.serve(f"/{n}.jpg", make_picture(n, exif=turned) if n == 19 else make_picture(n))
    web.serve("/gone", status=410)
    web.serve("/broken", status=500)
    return web


def images(artifact: Any, attempts: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """Status, error, sizes and bytes by URL, as far as they depend on the URL alone."""
    tars = {name: artifact.path(name).read_bytes() for name in artifact.names("raw-*.tar")}
    (tar,) = tars.values()
    return {
        url: (
            *(row[name] for name in ("status", "error", "width", "height", "sha256", "source_sha256", "format")),
            tar[row["offset"] : row["offset"] + row["length"]] if row["length"] else None,
        )
        for url, row in attempts(artifact).items()
    }


def test_the_second_source_takes_over_what_the_first_got(
    photographs: Any, pairs_of: Any, download: Any, attempts: Any, tmp_path: Path
) -> None:
    shared = [*URLS, "http://a.test/gone", "http://a.test/broken"]
    hosts = {"a.test": photographs.address}
    first = download(pairs_of(shared), hosts, name="one", cache=tmp_path)
    photographs.serve("/own.jpg", photographs.routes["/0.jpg"](1)[2])
    spelled = ["http://A.test:80/x/../0.jpg", *shared[1:], "http://a.test/own.jpg"]

    asked = photographs.requests.copy()
    second = download(pairs_of(spelled), hosts, name="two", cache=tmp_path)

    again = photographs.requests - asked
    assert set(again) == {"/own.jpg"}
    there, here = images(first, attempts), images(second, attempts)
    assert {url: here[url] for url in shared[1:]} == {url: there[url] for url in shared[1:]}
    assert here[spelled[0]] == there[shared[0]]
    assert second.counts["status.http_500"] == 1


def test_two_sources_that_run_at_the_same_time_ask_once(
    photographs: Any, pairs_of: Any, download: Any, attempts: Any, tmp_path: Path
) -> None:
    answers = dict(photographs.routes)
    for path, answer in answers.items():
        photographs.routes[path] = lambda turn, answer=answer: (time.sleep(0.05), answer(turn))[1]
    made: dict[str, Any] = {}
    order = [*URLS, "http://a.test/gone"]

    def make(name: str, urls: list[str]) -> None:
        made[name] = download(pairs_of(urls), {"a.test": photographs.address}, name=name, cache=tmp_path, threads=4)

    threads = [threading.Thread(target=make, args=(name, order[n:] + order[:n])) for n, name in enumerate("abc")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert set(made) == set("abc")
    assert {path: photographs.requests[path] for path in answers} == {
        path: int(path not in ("/broken",)) for path in answers
    }
    one, *others = (images(made[name], attempts) for name in "abc")
    assert all(other == one for other in others)


def test_a_private_source_takes_over_nothing_and_leaves_no_trace(
    photographs: Any, pairs_of: Any, download: Any, tmp_path: Path
) -> None:
    hosts = {"a.test": photographs.address}
    download(pairs_of(URLS), hosts, name="secret", source={"private": True}, cache=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    download(pairs_of(URLS), hosts, name="open", cache=tmp_path)
    download(pairs_of(URLS), hosts, name="hidden", source={"private": True}, cache=tmp_path)
    assert {photographs.requests[f"/{n}.jpg"] for n in range(20)} == {3}
    entries = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(entries) == 1
    assert "secret" not in entries[0]
    assert "hidden" not in entries[0]


def test_only_sources_with_equal_settings_share(photographs: Any, pairs_of: Any, download: Any, tmp_path: Path) -> None:
    hosts = {"a.test": photographs.address}
    variants: dict[str, dict[str, Any]] = {
        "one": {},
        "two": {"opt_out_directives": []},
        "three": {"allow_private_hosts": {"three": ("intranet",)}},
        "four": {"timeout": 3.0, "threads": 1, "contact": "mailto:x@example.org"},
    }
    for name, settings in variants.items():
        download(pairs_of(URLS[:1]), hosts, name=name, cache=tmp_path, **settings)
    assert photographs.requests["/0.jpg"] == 3


def test_each_source_checks_its_own_hashes_and_what_is_forgotten(
    photographs: Any, pairs_of: Any, download: Any, attempts: Any, tmp_path: Path
) -> None:
    hosts, bodies = {"a.test": photographs.address}, [photographs.routes[f"/{n}.jpg"](1)[2] for n in range(20)]
    md5 = [hashlib.md5(body, usedforsecurity=False).hexdigest() for body in bodies]
    wrong = {URLS[5]: {"sha256": "0" * 64}}
    download(pairs_of(URLS, meta=wrong), hosts, name="one", cache=tmp_path)
    (tmp_path / "forgotten.json").write_text(Tombstones(urls=frozenset({url_digest(URLS[7])})).to_json())
    meta = {URLS[1]: {"md5": md5[1]}, URLS[2]: {"md5": md5[3]}, URLS[19]: {"md5": md5[19]}}
    photographs.requests.clear()

    second = download(
        pairs_of(URLS, meta=meta), hosts, name="two", cache=tmp_path, tombstones=tmp_path / "forgotten.json"
    )

    statuses = {url: row["status"] for url, row in attempts(second).items() if row["status"] != "success"}
    assert statuses == {URLS[2]: "hash_mismatch", URLS[7]: "forgotten"}
    assert attempts(second)[URLS[1]]["hash_ok"]
    # One was no success for the other source only; of the other the bytes before turning are not kept.
    assert sorted(path for path in photographs.requests if path.endswith(".jpg")) == ["/19.jpg", "/5.jpg"]


def _enter(folder: Path, about: dict[str, str], url: str, entered: Any) -> None:
    listing = UrlEntry(folder, about, {url: 0})
    listing.enter()
    entered.set()
    time.sleep(60)


def test_a_partition_whose_process_dies_is_not_waited_for(tmp_path: Path) -> None:
    about = {"source": "one", "artifact": str(tmp_path / "a"), "partition": "00000", "out": str(tmp_path / "o")}
    context = multiprocessing.get_context("spawn")
    entered = context.Event()
    other = context.Process(target=_enter, args=(tmp_path / "urls", about, URLS[0], entered))
    other.start()
    assert entered.wait(30)
    listing = UrlEntry(tmp_path / "urls", {**about, "source": "two", "artifact": "b"}, {URLS[0]: 7, URLS[1]: 8})
    listing.enter()
    assert listing.elsewhere() == {7}
    taken: list[Any] = []
    waiting = threading.Thread(target=lambda: taken.extend(listing.outcomes()))
    waiting.start()
    time.sleep(0.5)
    assert waiting.is_alive()
    assert other.pid
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    waiting.join(5)
    assert not waiting.is_alive()
    assert taken == []


def test_old_entries_are_neither_used_nor_kept(photographs: Any, pairs_of: Any, download: Any, tmp_path: Path) -> None:
    hosts = {"a.test": photographs.address}
    download(pairs_of(URLS[:1]), hosts, name="one", cache=tmp_path)
    (entry,) = tmp_path.rglob("*.json")
    os.utime(entry, (0, 0))
    second = download(pairs_of(URLS[:1]), hosts, name="two", cache=tmp_path)
    assert photographs.requests["/0.jpg"] == 2
    assert len(list(tmp_path.rglob("*.json"))) == 1
    assert pq.read_table(second.path("attempts-00000.parquet"))["status"].to_pylist() == ["success"]
