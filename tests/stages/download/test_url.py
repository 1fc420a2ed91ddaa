"""URLs are brought into the one form that is compared with rules and sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.download.outcome import Failure
from stages.download.url import host_of, redirect_url, remove_dot_segments, request_url


@pytest.mark.parametrize(
    ("listed", "wire"),
    [
        (" http://A.test/a b.jpg ", "http://a.test/a%20b.jpg"),
        ("http://bücher.test/é?q=ü", "http://xn--bcher-kva.test/%C3%A9?q=%C3%BC"),
        ("http://b%C3%BCcher.test/x", "http://xn--bcher-kva.test/x"),
        ("https://a.test:8443/x%20y.jpg#part", "https://a.test:8443/x%20y.jpg"),
        ("http://user:secret@a.test/x", "http://a.test/x"),
        ("http://[2001:db8::1]:80/x", "http://[2001:db8::1]/x"),
        ("https://a.test:443", "https://a.test/"),
        ("https://a.test:80/", "https://a.test:80/"),
        ("http://a.test?x", "http://a.test/?x"),
        ("http://a.test/x/../private/1.jpg", "http://a.test/private/1.jpg"),
        ("http://a.test/x/%2e%2E/private/./%2e/1.jpg", "http://a.test/private/1.jpg"),
        ("http://a.test/../../%2e%2e/private/1.jpg", "http://a.test/private/1.jpg"),
        ("http://a.test/%70riv%61te/1%2ejpg", "http://a.test/private/1.jpg"),
        ("http://a.test/%7euser/a%2fb%c3%a9", "http://a.test/~user/a%2Fb%C3%A9"),
        ("http://a.test//x//..//y/", "http://a.test//x//y/"),
        ("http://a.test/x/..", "http://a.test/"),
        ("http://a.test/x/y/.", "http://a.test/x/y/"),
        ("http://a.test/.../..x/x../.x", "http://a.test/.../..x/x../.x"),
        ("http://a.test/100%/%zz/%", "http://a.test/100%/%zz/%"),
        ("http://a.test/x?sign=%2f%7e/../y", "http://a.test/x?sign=%2f%7e/../y"),
    ],
)
def test_urls_are_made_fit_for_the_wire(listed: str, wire: str) -> None:
    assert request_url(listed) == wire
    assert request_url(wire) == wire


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("b.jpg", "http://a.test/x//y/b.jpg"),
        ("../b.jpg", "http://a.test/x//b.jpg"),
        ("%2e%2e/%2E%2e/%2e%2e/b.jpg", "http://a.test/b.jpg"),
        ("?q", "http://a.test/x//y/z?q"),
        ("/b c.jpg#fragment", "http://a.test/b%20c.jpg"),
        ("//b.test/c", "http://b.test/c"),
        ("http:d", "http://a.test/x//y/d"),
        ("HTTPS://B.test:443/c", "https://b.test/c"),
        ("http://b\xc3\xbccher.test/\xc3\xa9", "http://xn--bcher-kva.test/%C3%A9"),  # UTF-8, read as Latin-1
        ("/\xe9", "http://a.test/%E9"),
    ],
)
def test_a_location_is_resolved_against_the_url_that_it_came_from(location: str, url: str) -> None:
    assert redirect_url("http://a.test/x//y/z", location) == url


@given(st.lists(st.sampled_from([".", "..", "", "a", "b.c", "..."])))
def test_a_path_without_dot_segments_is_left_as_it_is(segments: list[str]) -> None:
    path = remove_dot_segments("/" + "/".join(segments))
    assert path.startswith("/")
    assert {".", ".."}.isdisjoint(path.split("/"))
    assert remove_dot_segments(path) == path
    if {".", ".."}.isdisjoint(segments):
        assert path == "/" + "/".join(segments)


@given(st.text())
def test_any_text_is_a_url_or_a_failure(text: str) -> None:
    try:
        url = request_url("http://" + text)
        assert request_url(url) == url
    except Failure as failure:
        url = failure.status
    assert url == "invalid_url" or (host_of(url) and url.isascii())
