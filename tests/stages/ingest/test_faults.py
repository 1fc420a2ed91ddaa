"""Which addresses are good: what the web has, however unusual."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.config import IngestSettings
from stages.ingest.faults import fault, url_fault
from stages.ingest.files import InputFile
from stages.ingest.source import Pair

FILE = InputFile("list", "list")


@pytest.mark.parametrize(
    "url",
    [
        "http://x.test",
        "HTTPS://X.TEST/A.JPG",
        "http://10.0.0.1/1.jpg",
        "http://[::1]:8080/1.jpg",
        "http://user:word@x.test/1.jpg",
        "http://x.test/a photo.jpg",
        "http://x.test/caf\u00e9.jpg",
        "http://\u732b.test/1.jpg",
        "http://under_score.test/1.jpg",
        "http://x.test?only=query",
        "http://x.test:80",
    ],
)
def test_unusual_addresses_of_the_web_are_no_fault_of_the_list(url: str) -> None:
    assert url_fault(url, 8_192) is None


@given(st.text(max_size=60), st.text(max_size=30) | st.from_regex(r"https?://[a-z0-9.:/@\[\]%\\-]*", fullmatch=True))
def test_any_text_is_judged_and_what_passes_can_be_stored(caption: str, url: str) -> None:
    reason = fault(Pair(FILE, caption, url), IngestSettings())
    if reason is None:
        assert (caption + url).encode()
        assert caption.strip()
        assert url.strip().lower().startswith(("http://", "https://"))


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40), st.integers(1, 40))
def test_the_longest_caption_is_counted_in_bytes(caption: str, longest: int) -> None:
    reason = fault(Pair(FILE, caption, "http://x.test/1.jpg"), IngestSettings(max_caption_bytes=longest))
    if reason in (None, "caption_too_long"):
        assert (reason is not None) == (len(caption.encode()) > longest)
