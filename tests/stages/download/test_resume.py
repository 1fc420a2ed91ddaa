"""What was fetched before a kill is not fetched again, and what can be had later is tried again on request."""

from __future__ import annotations

import collections
import hashlib
import itertools
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.run_partition import ArtifactJob, run_partition
from stages.base.contract import StageContext, UserError
from stages.base.tombstones import Tombstones, domain_digest, url_digest
from stages.download.attempts import FetchedImage
from stages.download.config import DownloadConfig
from stages.download.image import VerifiedImage
from stages.download.journal import Journal
from stages.download.outcome import Failure
from stages.download.stage import Download
from stages.ingest.config import SourceConfig

BARE = VerifiedImage(b"", "jpeg", 4, 3, 1)


@contextmanager
def breaking_off(folder: Path) -> Iterator[Journal]:
    """A journal whose partition fails at the end of the block."""
    journal = Journal(folder, folder.parent)
    try:
        yield journal
    finally:
        journal.__exit__(KeyError, KeyError(), None)


def put(journal: Journal, uid: str, data: bytes) -> FetchedImage:
    digest = hashlib.sha256(data).hexdigest()
    return journal.store(uid, data, BARE, digest, digest)


def test_a_spool_keeps_what_it_has_when_its_block_fails_and_nothing_when_it_succeeds(tmp_path: Path) -> None:
    with breaking_off(tmp_path / "s") as journal:
        put(journal, "a", b"first")
        journal.fail("b", Failure("http_404"))
        journal.fail("c", Failure("timeout"))
        journal.fail("d", Failure("forgotten"))
    with Journal(tmp_path / "s", tmp_path) as journal:
        assert set(journal.outcomes) == {"a", "b"}  # what may pass is tried again
        kept, failed = journal.outcomes["a"], journal.outcomes["b"]
        assert isinstance(kept, FetchedImage)
        assert (kept.data, kept.picture) == (b"first", BARE)
        assert isinstance(failed, Failure)
        assert failed.status == "http_404"
        assert put(journal, "e", b"next").data == b"next"
        assert kept.data == b"first"
    assert not (tmp_path / "s").exists()


@settings(max_examples=60, deadline=None)
@given(
    pictures=st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=6), cut=st.floats(0, 1), lost=st.data()
)
def test_a_journal_cut_anywhere_gives_back_only_whole_pictures(
    tmp_path_factory: pytest.TempPathFactory, pictures: list[bytes], cut: float, lost: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    with breaking_off(folder / "s") as journal:
        for number, data in enumerate(pictures):
            put(journal, str(number), data)
    lines = (folder / "s" / "journal").read_bytes()
    (folder / "s" / "journal").write_bytes(lines[: int(cut * len(lines))])
    images = (folder / "s" / "images").read_bytes()
    (folder / "s" / "images").write_bytes(images[: lost.draw(st.integers(0, len(images)))])
    with Journal(folder / "s", folder) as journal:
        for uid, stored in journal.outcomes.items():
            assert isinstance(stored, FetchedImage)
            assert stored.data == pictures[int(uid)]
        again = put(journal, "again", b"again")
        assert again.data == b"again"


def test_two_processes_never_share_a_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "s", tmp_path) as one:
        put(one, "a", b"first")
        with Journal(tmp_path / "s", tmp_path) as two:
            assert two.outcomes == {}
            put(two, "b", b"other")
        assert one.outcomes == {}
        put(one, "c", b"third")
        assert (tmp_path / "s" / "images").read_bytes() == b"firstthird"


def test_a_partition_that_broke_off_requests_only_the_rest(
    web: Any, make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], tmp_path: Path
) -> None:
    broken = {"now": True}

    def answer(turn: int) -> tuple[int, dict[str, str], bytes]:
        if broken["now"]:
            return 503, {}, b""
        return 200, {}, make_picture(9)

    for n in range(30):
        web.serve(f"/{n}.jpg", make_picture(n % 3))
    web.serve("/gone", status=410)
    web.routes["/late.jpg"] = answer
    pairs = pairs_of([*(f"http://a.test/{n}.jpg" for n in range(30)), "http://a.test/gone", "http://a.test/late.jpg"])

    class Served(Download):
        def _served(self, context: StageContext, remote: bool) -> Any:
            return nullcontext({"a.test": web.address})

    def make(name: str, **watched: float) -> Path:
        config = DownloadConfig(name="s", source=SourceConfig(kind="x", paths=("l",)), retries=0, **watched)
        stage = Served(config)
        (partition,) = stage.partitions({"pairs": (pairs,)})
        folder = tmp_path / name
        for below in ("out", "parts"):
            (folder / below).mkdir(parents=True)
        stage.run(
            partition, StageContext({"pairs": (pairs,)}, folder / "out", folder / "parts", str(tmp_path / "scratch"))
        )
        return folder / "out"

    with pytest.raises(UserError, match="30 of the last 32"):
        make("first", watch_after=32, min_success_rate=1.0)
    web.requests.clear()
    broken["now"] = False
    second = make("second")
    assert web.requests == {"/late.jpg": 1}
    assert not list((tmp_path / "scratch" / "download").iterdir())
    third = make("third")  # nothing to go on with: all anew, and the same bytes
    assert web.requests["/3.jpg"] == 1
    for path in second.iterdir():
        assert path.read_bytes() == (third / path.name).read_bytes()


def test_a_later_round_tries_only_what_may_pass_and_keeps_everything_else(
    web: Any,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    attempts: Callable[..., Any],
) -> None:
    for n in range(6):
        web.serve(f"/{n}.jpg", make_picture(n))
    web.serve("/gone", status=410)
    web.serve("/busy.jpg", status=503)
    urls = [*(f"http://a.test/{n}.jpg" for n in range(6)), "http://a.test/gone", "http://a.test/busy.jpg"]
    pairs = pairs_of(urls, per_file=3)
    first = download(pairs, {"a.test": web.address}, retries=0)
    assert first.counts["status.http_503"] == 1

    web.requests.clear()
    web.serve("/busy.jpg", make_picture(7))
    second = download(pairs, {"a.test": web.address}, retries=0, retry_pass=1, previous=first, min_success_rate=1.0)

    assert web.requests == {"/busy.jpg": 1}
    before, after = attempts(first), attempts(second)
    assert after["http://a.test/busy.jpg"]["status"] == "success"
    assert (second.counts["images"], second.counts["success"], second.counts["status.http_410"]) == (8, 7, 1)
    assert "status.http_503" not in second.counts
    same = [name for name in before[urls[0]] if name not in ("offset",)]
    for url in urls[:7]:
        assert [before[url][name] for name in same] == [after[url][name] for name in same]
    fresh = download(pairs, {"a.test": web.address}, retries=0)
    for name in ("raw-00000.tar", "raw-00001.tar", "raw-00002.tar", "attempts-00001.parquet"):
        assert second.path(name).read_bytes() == fresh.path(name).read_bytes()


def test_what_is_forgotten_is_neither_requested_nor_kept(
    web: Any,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    attempts: Callable[..., Any],
    tmp_path: Path,
) -> None:
    for n in range(4):
        web.serve(f"/{n}.jpg", make_picture(n))
    web.serve("/to-evil", status=302, Location="http://sub.evil.test/0.jpg")
    urls = {
        "http://a.test/0.jpg": "forgotten",  # by its address
        "http://a.test/1.jpg": "forgotten",  # by its content
        "http://a.test/2.jpg": "success",
        "http://sub.evil.test/3.jpg": "forgotten",  # by its domain
        "http://a.test/to-evil": "forgotten",
    }
    hosts = {"a.test": web.address, "sub.evil.test": web.address}
    everything = download(pairs_of(list(urls)), hosts)
    assert everything.counts["success"] == 5
    web.requests.clear()
    listed = tmp_path / "forgotten.json"
    marks = Tombstones(
        urls=frozenset({url_digest("http://a.test/0.jpg")}),
        sha256=frozenset({hashlib.sha256(make_picture(1)).hexdigest()}),
        domains=frozenset({domain_digest("evil.test")}),
    )
    listed.write_text(marks.to_json())

    rows = attempts(download(pairs_of(list(urls)), hosts, tombstones=listed))
    assert {url: row["status"] for url, row in rows.items()} == urls
    assert web.requests == {"/1.jpg": 1, "/2.jpg": 1, "/to-evil": 1}

    later = download(pairs_of(list(urls)), hosts, tombstones=listed, retry_pass=1, previous=everything)
    kept = {url for url, row in attempts(later).items() if row["status"] == "success"}
    assert kept == {"http://a.test/2.jpg", "http://a.test/to-evil"}  # of whose redirect nothing was written down


@pytest.mark.parametrize("policy", ["drop", "keep"])
@pytest.mark.parametrize("name", ["sha256", "md5"])
def test_listed_hashes_are_verified_by_policy(
    web: Any,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    attempts: Callable[..., Any],
    policy: str,
    name: str,
) -> None:
    for n in range(3):
        web.serve(f"/{n}.jpg", make_picture(n))
    urls = [f"http://a.test/{n}.jpg" for n in range(4)]
    right, other = (hashlib.new(name, make_picture(n)).hexdigest() for n in (0, 99))
    meta = {urls[0]: {name: right.upper()}, urls[1]: {name: other}, urls[2]: {name: "no hash"}}

    rows = attempts(download(pairs_of(urls, captions=2, meta=meta), {"a.test": web.address}, hash_mismatch=policy))

    assert [(rows[url]["status"], rows[url]["hash_ok"]) for url in urls] == [
        ("success", True),
        ("hash_mismatch", False) if policy == "drop" else ("success", False),
        ("success", None),
        ("http_404", None),
    ]


def test_a_disk_that_fills_up_is_one_line_and_what_was_fetched_is_not_fetched_again(
    web: Any, make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], small_disk: Path
) -> None:
    for n in range(40):
        web.serve(f"/{n}.jpg", make_picture(n, (400, 300)) + bytes(100_000))
    pairs = pairs_of([f"http://a.test/{n}.jpg" for n in range(40)])

    class Served(Download):
        def _served(self, context: StageContext, remote: bool) -> Any:
            return nullcontext({"a.test": web.address})

    stage = Served(DownloadConfig(name="s", source=SourceConfig(kind="x", paths=("l",)), threads=4))
    (partition,) = stage.partitions({"pairs": (pairs,)})
    url, scratch = str(small_disk / "artifact"), str(small_disk / "scratch")
    job = ArtifactJob("download[s]", stage, "f", url, {"pairs": (pairs,)}, scratch, {})
    with pytest.raises(UserError, match=r"no space is left on this disk.*the same command resumes from there"):
        run_partition(job, partition)
    kept = sum(web.requests[f"/{n}.jpg"] for n in range(40)) - 4  # one image per thread may be lost
    assert kept > 10
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    web.requests.clear()

    run_partition(job, partition)

    assert job.artifact_dir.read_commit(partition.id).counts["success"] == 40
    assert sum(web.requests[f"/{n}.jpg"] for n in range(40)) <= 40 - kept


def test_a_journal_line_that_a_full_disk_cuts_off_spoils_no_other(small_disk: Path) -> None:
    with breaking_off(small_disk / "s") as journal:
        put(journal, "a", b"first")
        (small_disk / "filler").write_bytes(bytes(100_000))
        lines = itertools.repeat(("b", Failure("http_404", "x" * 3000)))
        with pytest.raises(OSError, match="No space left"):
            collections.deque(itertools.starmap(journal.fail, lines), maxlen=0)
        (small_disk / "filler").unlink()
        put(journal, "c", b"third")
    with Journal(small_disk / "s", small_disk) as journal:
        assert set(journal.outcomes) == {"a", "b", "c"}
