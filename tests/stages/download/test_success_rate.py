"""A collapse stops the source while it happens, and nothing fetched is lost by it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stages.base.contract import UserError
from stages.base.tombstones import Tombstones
from stages.download.config import DownloadConfig
from stages.download.stage import Download
from stages.download.success_rate import Window, check, merged, poor_hosts, report
from stages.ingest.config import SourceConfig


def listing(web: Any, picture: bytes, good: int, bad: int) -> list[str]:
    for n in range(good):
        web.serve(f"/{n}.jpg", picture)
    return [f"http://a.test/{n}.jpg" for n in range(good + bad)]


def test_a_collapse_within_a_partition_names_reasons_and_hosts_and_how_to_go_on(
    web: Any, make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    pairs = pairs_of(listing(web, make_picture(1), good=10, bad=190))
    with pytest.raises(UserError) as stopped:
        download(pairs, {"a.test": web.address}, watch_after=50, threads=2)
    line = str(stopped.value)
    assert line.startswith("sources.src: only ")
    assert "of the last 50 images could be downloaded" in line
    assert "http_404" in line
    assert "a.test (" in line
    assert "allow_private_hosts" not in line
    assert "download.min_success_rate=0" in line
    assert web.unrouted.total() < 120
    assert download(pairs, {"a.test": web.address}, watch_after=50, min_success_rate=0).counts["success"] == 10


def test_a_collapse_says_which_key_decides_about_the_commonest_failure(
    pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    pairs = pairs_of([f"http://10.0.0.1/{n}.jpg" for n in range(60)])
    with pytest.raises(
        UserError, match=r"forbidden_address 50; .* in download\.allow_private_hosts\. What was fetched"
    ):
        download(pairs, watch_after=50)


def test_a_private_source_that_collapses_names_no_host(
    web: Any, pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    pairs = pairs_of([f"http://secret.test/{n}.jpg" for n in range(60)])
    with pytest.raises(UserError) as stopped:
        download(pairs, {"secret.test": web.address}, {"private": True}, watch_after=50)
    assert "secret" not in str(stopped.value)


def test_a_list_that_gives_enough_is_never_stopped(
    web: Any, make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    pairs = pairs_of(listing(web, make_picture(1), good=60, bad=60), per_file=20)
    assert download(pairs, {"a.test": web.address}, watch_after=40).counts["success"] == 60


def test_a_collapse_over_small_partitions_is_noticed_after_their_commits(
    web: Any, make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    pairs = pairs_of(listing(web, make_picture(1), good=5, bad=95), per_file=10)
    with pytest.raises(UserError, match="min_success_rate"):
        download(pairs, {"a.test": web.address}, watch_after=50)


def test_the_window_looks_at_the_newest_attempts_only() -> None:
    window = Window("s", 0.5, 10)
    for _ in range(100):
        window.add("a", "success")
    for _ in range(5):
        window.add("a", "timeout")
    for _ in range(50):
        window.add("a", "forgotten")
    with pytest.raises(UserError, match="4 of the last 10"):
        window.add("b", "dns")


def test_newest_partitions_count_until_there_are_enough_attempts() -> None:
    good = report([("a", "success", 100)])
    bad = report([("a", "http_403", 45), ("", "success", 5)])
    check("s", 0.3, 60, [good, bad])  # 55 of the newest 60 and more are taken together: 105 of 150
    with pytest.raises(UserError, match="5 of the last 50"):
        check("s", 0.3, 50, [good, bad])
    check("s", 0.3, 51, [bad, good])
    assert merged([good, bad])["success"] == 105


def test_a_host_that_gives_little_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    config = DownloadConfig(name="s", source=SourceConfig(kind="x", paths=("l",)), watch_after=100)
    stage = Download(config)
    part = report([("poor.test", "http_403", 60), ("poor.test", "success", 3), ("good.test", "success", 900)])
    assert set(poor_hosts([part, part], 0.3, 100)) == {"poor.test"}
    with caplog.at_level(logging.WARNING):
        stage.on_commit([part])
        assert not caplog.records
        stage.on_commit([part, part])
        stage.on_commit([part, part, part])
    assert [record.getMessage() for record in caplog.records] == [
        "sources.s: few images of poor.test can be downloaded: http_403 120, success 6"
    ]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_source_without_a_single_image_is_finished_with_a_line_that_says_why(
    web: Any,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    web.serve("/0.jpg", make_picture(1))
    pairs = pairs_of([f"http://{web.address}/{n}.jpg" for n in range(4)] + ["nonsense"], per_file=2)
    failed = download(pairs)
    assert failed.counts["images"] == 5
    assert warnings_of(caplog) == [
        "sources.src: none of its 5 images could be fetched: forbidden_address 4, forbidden_scheme 1 (the host is on a "
        "private, loopback or link-local address); name hosts or networks that are to be reached in "
        "download.allow_private_hosts"
    ]
    caplog.clear()
    assert download(pairs, allow_private_hosts=("127.0.0.1",)).counts["success"] == 1
    assert warnings_of(caplog) == []


def test_what_may_pass_is_fetched_by_a_retry_pass_after_a_download_without_an_image(
    web: Any,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    web.serve("/0.jpg", status=503)
    pairs = pairs_of(["http://secret.test/0.jpg"])
    private = {"private": True}
    failed = download(pairs, {"secret.test": web.address}, private, retries=0)
    (line,) = warnings_of(caplog)
    assert "none of its 1 images could be fetched: http_503 1" in line
    assert "`pairmill run download --retry-failed` fetches them again" in line
    assert "secret" not in line
    web.serve("/0.jpg", make_picture(1))
    caplog.clear()
    again = download(pairs, {"secret.test": web.address}, private, previous=failed, retry_pass=1)
    assert again.counts["success"] == 1
    assert warnings_of(caplog) == []
    web.serve("/0.jpg", status=404)
    download(pairs, {"secret.test": web.address}, private, previous=failed, retry_pass=1)
    assert "such a failure is final" in warnings_of(caplog)[0]


def test_a_source_of_which_every_image_was_forgotten_has_no_failures_to_report(
    pairs_of: Callable[..., Any], download: Callable[..., Any], caplog: pytest.LogCaptureFixture, folder: Path
) -> None:
    pairs = pairs_of(["http://a.test/0.jpg"])
    (row,) = pq.read_table(pairs.path("pairs-00000.parquet")).to_pylist()
    tombstones = folder / "forgotten.json"
    tombstones.write_text(Tombstones(images=frozenset([row["image_uid"]])).to_json())
    assert download(pairs, tombstones=tombstones).counts["status.forgotten"] == 1
    assert warnings_of(caplog) == []


def test_hosts_are_accounted_for(
    web: Any,
    closed_port: str,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
) -> None:
    size = len(make_picture(1))
    urls = listing(web, make_picture(1), good=7, bad=3)
    urls += ["http://dead.test/1", "http://dead.test/2", "http://b.test/0.jpg", "http://b.test/99", "nonsense"]
    hosts = {"a.test": web.address, "b.test": web.address, "dead.test": closed_port}
    artifact = download(pairs_of(urls, paths=["x.jpg"], per_file=4), hosts)
    rows = pq.read_table(artifact.path("hosts.parquet")).to_pylist()
    assert rows == [
        {"host": "a.test", "attempts": 10, "success": 7, "bytes": 7 * size, "reasons": [("http_404", 3)]},
        {"host": "b.test", "attempts": 2, "success": 1, "bytes": size, "reasons": [("http_404", 1)]},
        {"host": "dead.test", "attempts": 2, "success": 0, "bytes": 0, "reasons": [("connection_refused", 2)]},
    ]
    private = download(pairs_of(urls), hosts, {"private": True})
    assert "hosts.parquet" not in private.names()


def test_a_source_of_local_files_has_a_table_of_hosts_without_rows(
    folder: Path, pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    artifact = download(pairs_of(paths=["a.jpg", "b.jpg"]), source={"images": str(folder)})
    assert pq.read_table(artifact.path("hosts.parquet")).num_rows == 0
