"""What servers forbid is not fetched: robots.txt, opt-out headers, reserved rights to mine."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.download.opt_out import OptOut, tdm_rules
from stages.download.outcome import Failure
from stages.download.robots import MAX_BYTES, CrawlRules, RulesResponse

SETTINGS = {"backoff": 0.01, "max_wait": 0.05}


def test_robots_txt_is_read_once_per_host_and_obeyed(
    web: Any,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    attempts: Callable[..., Any],
) -> None:
    rules = b"User-agent: *\nDisallow: /\n\n"
    rules += b"User-agent: PairMill\nDisallow: /private/\nAllow: /private/*.png$\nDisallow: /*?"
    web.serve("/robots.txt", rules)
    for path in ("/a.jpg", "/b.jpg", "/private/c.jpg", "/private/d.png", "/e.jpg?x=1"):
        web.serve(path, make_picture(1))
    web.serve("/to-private", status=302, Location="/private/c.jpg")
    urls = {
        "http://a.test/a.jpg": "success",
        "http://a.test/b.jpg": "success",
        "http://a.test/private/c.jpg": "robots",
        "http://a.test/private/d.png": "success",
        "http://a.test/e.jpg?x=1": "robots",
        "http://a.test/to-private": "robots",
        "http://b.test/private/c.jpg": "robots",
    }
    hosts = {"a.test": web.address, "b.test": web.address}

    artifact = download(pairs_of(list(urls)), hosts, **SETTINGS)

    assert {url: row["status"] for url, row in attempts(artifact).items()} == urls
    assert web.requests["/robots.txt"] == 2
    assert web.requests["/private/c.jpg"] == 0
    web.requests.clear()
    ignored = download(pairs_of(list(urls)), hosts, robots=False, **SETTINGS)
    assert ignored.counts["success"] == len(urls)
    assert web.requests["/robots.txt"] == 0


def test_no_spelling_of_a_path_evades_robots_txt(
    web: Any,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    attempts: Callable[..., Any],
) -> None:
    web.serve(
        "/robots.txt", b"User-agent: *\nDisallow: /private/\nDisallow: /*?secret\nDisallow: /t%6f/%C3%A9\nDisallow: //x"
    )
    spellings = [
        "/private/1.jpg",
        "/x/../private/1.jpg",
        "/x/%2e%2e/private/1.jpg",
        "/x/.%2E/./%2e/private/1.jpg",
        "/../private/1.jpg",
        "/%70rivate/1.jpg",
        "/private/%2e/1.jpg",
        "/x/y/../../private/1.jpg",
        "/a.jpg?%73ecret",
        "/to/%c3%a9",
        "/%74o/é",
        "//x/1.jpg",
        "//y/../x/1.jpg",
    ]
    served = ["/./1.jpg", "/private/../1.jpg", "/private/%2e%2E/1.jpg", "/%31.jpg"]
    web.serve("/1.jpg", make_picture(1))
    urls = {f"http://a.test{path}": "robots" for path in spellings}
    urls |= {f"http://a.test{path}": "success" for path in served}
    for number, path in enumerate(spellings):
        web.serve(f"/to/{number}", status=302, Location="http://a.test" + path.replace("é", "\xc3\xa9"))
        urls[f"http://a.test/to/{number}"] = "robots"
    web.serve("/to/1.jpg", status=302, Location="../private/%2e%2e/1.jpg")
    urls["http://a.test/to/1.jpg"] = "success"

    artifact = download(pairs_of(list(urls)), {"a.test": web.address}, **SETTINGS)

    assert {url: row["status"] for url, row in attempts(artifact).items()} == urls
    assert set(web.requests) == {"/robots.txt", "/1.jpg", "/to/1.jpg", *(f"/to/{n}" for n in range(len(spellings)))}
    assert set(web.unrouted) <= {"/.well-known/tdmrep.json"}


@pytest.mark.parametrize(("status", "ends"), [(404, "success"), (403, "success"), (301, "success")])
def test_a_server_without_robots_txt_forbids_nothing(
    web: Any,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    attempts: Callable[..., Any],
    status: int,
    ends: str,
) -> None:
    web.serve("/robots.txt", status=status, **({"Location": "/rules"} if status == 301 else {}))
    web.serve("/rules", b"User-agent: *\nDisallow: /other")
    web.serve("/a.jpg", make_picture(1))
    artifact = download(pairs_of(["http://a.test/a.jpg"]), {"a.test": web.address}, **SETTINGS)
    assert [row["status"] for row in attempts(artifact).values()] == [ends]
    assert web.requests["/rules"] == (status == 301)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_rules_that_cannot_be_read_are_retried_and_then_forbid_everything(
    web: Any,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    attempts: Callable[..., Any],
    status: int,
) -> None:
    web.serve("/robots.txt", status=status)
    for n in range(30):
        web.serve(f"/{n}.jpg", make_picture(1))
    pairs = pairs_of([f"http://a.test/{n}.jpg" for n in range(30)])

    rows = attempts(download(pairs, {"a.test": web.address}, **SETTINGS)).values()

    assert {(row["status"], row["error"]) for row in rows} == {("robots_unavailable", f"robots.txt: http_{status}")}
    assert web.requests == {"/robots.txt": 3}

    web.requests.clear()
    web.routes["/robots.txt"] = lambda turn: (status, {}, b"") if turn == 1 else (404, {}, b"")
    assert download(pairs, {"a.test": web.address}, **SETTINGS).counts["success"] == 30


def test_only_the_first_part_of_an_endless_robots_txt_is_read(
    web: Any, make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    lines = b"User-agent: *\nDisallow: /no\n" + b"# filler\n" * (MAX_BYTES // 9) + b"Disallow: /\n"
    web.serve("/robots.txt", lines)
    web.serve("/a.jpg", make_picture(1))
    artifact = download(pairs_of(["http://a.test/a.jpg", "http://a.test/no"]), {"a.test": web.address}, **SETTINGS)
    assert (artifact.counts["success"], artifact.counts["status.robots"]) == (1, 1)


def test_a_crawl_delay_keeps_requests_apart(
    web: Any, make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    import time

    web.serve("/robots.txt", b"User-agent: *\nCrawl-delay: 0.1")
    taken: list[float] = []

    def answer(_: int) -> tuple[int, dict[str, str], bytes]:
        taken.append(time.monotonic())
        return 200, {}, make_picture(1)

    for n in range(5):
        web.routes[f"/{n}.jpg"] = answer
    pairs = pairs_of([f"http://a.test/{n}.jpg" for n in range(5)])
    download(pairs, {"a.test": web.address}, backoff=0.01, max_wait=5.0)
    gaps = [later - before for before, later in pairwise(taken)]
    assert len(gaps) == 4
    assert min(gaps) > 0.07  # of 0.1; a request may be held up on its way


def test_reserved_rights_and_directives_are_told_apart(
    web: Any,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    attempts: Callable[..., Any],
) -> None:
    web.serve("/.well-known/tdmrep.json", b'[{"location": "/r/*", "tdm-reservation": 1}]')
    web.serve("/ml.jpg", make_picture(1), X_Robots_Tag="noml")
    web.serve("/tdm.jpg", make_picture(1), tdm_reservation="1", tdm_policy="https://a.test/policy.json")
    web.serve("/free.jpg", make_picture(1), tdm_reservation="0")
    web.serve("/r/x.jpg", make_picture(1))
    pairs = pairs_of([f"http://a.test/{name}.jpg" for name in ("ml", "tdm", "free", "r/x")])

    rows = attempts(download(pairs, {"a.test": web.address}, **SETTINGS))

    assert {url.removeprefix("http://a.test/"): (row["status"], row["error"]) for url, row in rows.items()} == {
        "ml.jpg": ("opt_out", "X-Robots-Tag: noml"),
        "tdm.jpg": ("opt_out", "tdm-reservation: 1"),
        "free.jpg": ("success", None),
        "r/x.jpg": ("opt_out", "reserved in tdmrep.json"),
    }
    assert web.requests["/r/x.jpg"] == 0
    assert web.requests["/.well-known/tdmrep.json"] == 1
    free = download(pairs, {"a.test": web.address}, tdm_reservation="ignore", opt_out_directives=(), **SETTINGS)
    assert free.counts["success"] == 4


@pytest.mark.parametrize(
    ("lines", "forbidden"),
    [
        (["noai"], True),
        (["nofollow, NoAI"], True),
        (["all"], False),
        (["none"], True),
        (["otherbot: noai"], False),
        (["otherbot: nofollow, noai"], False),
        (["otherbot: noai", "pairmill: noimageindex"], True),
        (["otherbot: noai, pairmill: noml"], True),
        (["max-snippet: 10, noai"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], True),
        (["unavailable_after: Tue, 25 Jun 2030 15:00:00 PST"], False),
        (["max-image-preview: large"], False),
        (["*: noindex"], True),
        ([": , :noai:"], False),
    ],
)
def test_directives_are_read_with_whom_they_address(lines: list[str], forbidden: bool) -> None:
    headers = Message()
    for line in lines:
        headers["X-Robots-Tag"] = line
    opt_out = OptOut(("noai", "noimageai", "noindex", "noimageindex", "noml"), "pairmill", True)
    assert bool(opt_out(headers)) is forbidden


@pytest.mark.parametrize(
    ("content", "url", "allowed"),
    [
        (b'[{"location": "/", "tdm-reservation": 1}]', "http://a.test/x", False),
        (b'[{"location": "/*", "tdm-reservation": 1}, {"location": "/free/*", "tdm-reservation": 0}]', "/free/x", True),
        (b'[{"location": "/*.jpg$", "tdm-reservation": 1}]', "http://a.test/x.jpg", False),
        (b'[{"location": "/*.jpg$", "tdm-reservation": 1}]', "http://a.test/x.jpg?y", True),
        (b'{"location": "/", "tdm-reservation": "1"}', "http://a.test/x", False),
        (b'[{"location": "/", "tdm-reservation": 2}]', "http://a.test/x", True),
        (b'[{"location": ["/"], "tdm-reservation": 1}, 7, null]', "http://a.test/x", True),
        (b"<html>", "http://a.test/x", True),
        (b"[" * 100_000, "http://a.test/x", True),
        (b'[{"location": "/a\\nDisallow: /", "tdm-reservation": 1}]', "http://a.test/x", True),
    ],
)
def test_tdmrep_json_reserves_what_it_says(content: bytes, url: str, allowed: bool) -> None:
    rules = tdm_rules(content)
    assert (rules is None or rules.can_fetch(url, "*")) is allowed


@given(st.binary(max_size=400))
def test_any_bytes_are_a_robots_txt(content: bytes) -> None:
    rules = CrawlRules("pairmill", True, True)
    for file in ("http://a.test/robots.txt", "http://a.test/.well-known/tdmrep.json"):
        assert rules.claim(file)
        rules.read(file, lambda url: RulesResponse(200, b"User-agent: *\nDisallow: /x\n" + content))
    try:
        rules.check("http://a.test/x")
        outcome = "allowed"
    except Failure as failure:
        outcome = failure.status
    assert outcome in ("allowed", "robots", "opt_out")
    assert rules.missing("http://a.test/y") is None
    assert rules.delay("http://a.test/y") >= 0
