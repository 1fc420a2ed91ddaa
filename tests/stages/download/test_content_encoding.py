"""Bodies that were compressed in any of the ways of the web come out whole, bounded, or as a failure with a reason."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from stages.download.content_encoding import decoded
from stages.download.outcome import Failure

PICTURE = bytes(range(256)) * 40


def brotli(data: bytes) -> bytes:
    return bytes(pytest.importorskip("brotli").compress(data))


def zstd(data: bytes) -> bytes:
    return bytes(pytest.importorskip("zstandard").compress(data))


@pytest.mark.parametrize(("name", "pack"), [("br", brotli), ("zstd", zstd)])
def test_brotli_and_zstandard_are_decoded_where_a_decoder_is_installed(name: str, pack: Any) -> None:
    assert decoded(pack(PICTURE), [name], 20_000) == PICTURE
    assert decoded(pack(pack(PICTURE)), [name, name], 20_000) == PICTURE
    assert len(decoded(pack(bytes(50_000_000)), [name], 20_000)) == 20_001
    assert decoded(b"", [name], 20_000) == b""
    with pytest.raises(Failure) as failure:
        decoded(pack(PICTURE)[:-40], [name], 20_000)
    assert failure.value.status == "incomplete_transfer"
    assert PICTURE.startswith(decoded(pack(PICTURE)[:-40], [name], 20_000, whole=False))
    with pytest.raises(Failure) as failure:
        decoded(pack(PICTURE)[:4] + b"\xff" * 50, [name], 20_000)
    assert failure.value.status == "bad_response"


@pytest.mark.parametrize("name", ["br", "zstd"])
def test_without_a_decoder_the_reason_names_the_encoding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("brotli", "brotlicffi", "zstandard"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Failure) as failure:
        decoded(b"\x28\xb5\x2f\xfd....", [name], 100)
    assert failure.value.status == "unsupported_encoding"
    assert failure.value.explanation == f"Content-Encoding: {name}"
    assert failure.value.transient  # for --retry-failed, once a decoder is installed
