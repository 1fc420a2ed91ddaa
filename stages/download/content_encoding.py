"""Decompresses bodies: servers compress although the request accepts `identity` only."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from stages.download.outcome import Failure, Reason

#: Body, maximum size of the result, whether the body is complete -> at most one byte more than the maximum.
Decoder = Callable[[bytes, int, bool], bytes]

_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
#: A gzip file may be several, one after the other (RFC 1952, section 2.2); nobody sends this many.
_MAX_MEMBERS = 100


def decoded(body: bytes, encodings: Sequence[str], max_bytes: int, whole: bool = True) -> bytes:
    """A body without its encodings, which are given in lower case in the order in which they were applied.

    A name that is no compression (`identity`, or a mistake such as `utf-8`) changes nothing. If not `whole`, the body
    was truncated, and what can be decompressed of it is returned. The result has at most `max_bytes` + 1 bytes.

    Raises Failure: `bad_response` if the body is not compressed as announced, `incomplete_transfer` if it ends early,
    `unsupported_encoding` if no decoder is installed.
    """
    for encoding in reversed(encodings):
        decoder = _decoder(encoding)
        if decoder is None or not body:
            continue
        body = decoder(body, max_bytes, whole)
        whole = whole and len(body) <= max_bytes
    return body


def _decoder(encoding: str) -> Decoder | None:
    """The decoder of a compression; None for any other name. Raises Failure (`unsupported_encoding`)."""
    match encoding:
        case "gzip" | "x-gzip":
            return _gunzip
        case "deflate":
            return _inflate
        case "br":
            module = _installed("brotli", "brotlicffi")
            # Releases before 1.2 decompress without a limit, so that a small body could fill the memory.
            if module is not None and hasattr(module.Decompressor, "can_accept_more_data"):
                return lambda body, max_bytes, whole: _brotli(module, body, max_bytes, whole)
        case "zstd":
            module = _installed("zstandard")
            if module is not None:
                return lambda body, max_bytes, whole: _zstd(module, body, max_bytes, whole)
        case "compress" | "x-compress":
            pass
        case _:
            return None
    raise Failure(Reason.UNSUPPORTED_ENCODING, f"Content-Encoding: {encoding}")


def _installed(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


def _gunzip(body: bytes, max_bytes: int, whole: bool) -> bytes:
    pieces: list[bytes] = []
    room = max_bytes + 1
    # Some servers announce a compression that they do not apply.
    while body.startswith(_GZIP_MAGIC) and room > 0:
        if len(pieces) == _MAX_MEMBERS:
            raise _not_as_announced()
        unzip = zlib.decompressobj(31)
        pieces.append(_unzipped(unzip, body, room))
        room -= len(pieces[-1])
        if room > 0 and not unzip.eof and whole:
            raise Failure(Reason.INCOMPLETE_TRANSFER)
        body = unzip.unused_data
    return b"".join(pieces) if pieces else body


def _inflate(body: bytes, max_bytes: int, whole: bool) -> bytes:
    # `deflate` names the zlib format (RFC 9110, section 8.4.1.2), but many servers send the bare compressed data.
    formats = (15, -15) if body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0 else (-15,)
    for bits in formats:
        unzip = zlib.decompressobj(bits)
        try:
            data = _unzipped(unzip, body, max_bytes + 1)
        except Failure:
            if bits == formats[-1]:
                raise
            continue
        if whole and not unzip.eof and len(data) <= max_bytes:
            raise Failure(Reason.INCOMPLETE_TRANSFER)
        return data
    raise AssertionError("unreachable")


def _unzipped(unzip: Any, body: bytes, size: int) -> bytes:
    try:
        return bytes(unzip.decompress(body, size))  # a small body can hold gigabytes
    except zlib.error as error:
        raise _not_as_announced() from error


def _brotli(module: Any, body: bytes, max_bytes: int, whole: bool) -> bytes:
    decompressor = module.Decompressor()
    pieces: list[bytes] = []
    size = 0
    try:
        while size <= max_bytes and not decompressor.is_finished():
            pieces.append(decompressor.process(body, output_buffer_limit=max_bytes + 1 - size))
            size += len(pieces[-1])
            if not pieces[-1] and decompressor.can_accept_more_data():
                break  # all input is used up
            body = b""
    except module.error as error:
        raise _not_as_announced() from error
    if whole and size <= max_bytes and not decompressor.is_finished():
        raise Failure(Reason.INCOMPLETE_TRANSFER)
    return b"".join(pieces)[: max_bytes + 1]


def _zstd(module: Any, body: bytes, max_bytes: int, whole: bool) -> bytes:
    if not body.startswith(_ZSTD_MAGIC):
        return body
    # RFC 9659: decoders of the web need not support windows above 8 MiB.
    unzip = module.ZstdDecompressor(max_window_size=1 << 23)
    pieces: list[bytes] = []
    size = 0
    try:
        with unzip.stream_reader(body, read_across_frames=True) as reader:
            while size <= max_bytes and (piece := reader.read(min(1 << 18, max_bytes + 1 - size))):
                pieces.append(piece)
                size += len(piece)
    except module.ZstdError as error:
        raise _not_as_announced() from error
    if whole and size < min(module.frame_content_size(body), max_bytes):  # -1 if it is not stated
        raise Failure(Reason.INCOMPLETE_TRANSFER)
    return b"".join(pieces)


def _not_as_announced() -> Failure:
    return Failure(Reason.BAD_RESPONSE, "the body is not compressed as announced")
