"""Why a listed pair cannot be one: the rules that hold for every source."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from stages.ingest.config import IngestSettings
from stages.ingest.source import Pair

#: The usual web address, recognised at once; all others are taken apart.
_USUAL = re.compile(r"https?://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?:[/?][!-~]*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NO_HOST = re.compile(r"[\s<>\"{}|\\^`]")
#: What an address is that begins so and cannot be fetched.
_OTHER_SCHEMES = {"data": "data_url", "file": "file_url", "javascript": "script_url", "vbscript": "script_url"}


def fault(pair: Pair, settings: IngestSettings, image_only: bool = False) -> str | None:
    """The reason to reject a listed pair, a fixed phrase; None for a good one. Image-only ones need no caption."""
    return (
        (None if image_only else _caption_fault(pair.caption, settings.max_caption_bytes))
        or (_path_fault(pair.path) if pair.url is None else url_fault(pair.url.strip(), settings.max_url_bytes))
        or (None if pair.license is None or _encodes(pair.license) else "not_utf8")
    )


def _caption_fault(caption: str, longest: int) -> str | None:
    if not caption or caption.isspace():
        return "no_caption"
    if "\0" in caption:
        return "nul_in_caption"
    if caption.isascii():
        return "caption_too_long" if len(caption) > longest else None
    if not _encodes(caption):
        return "not_utf8"
    return "caption_too_long" if len(caption) > longest or len(caption.encode()) > longest else None


def url_fault(url: str, longest: int) -> str | None:
    """The same for an address without spaces around it."""
    if _USUAL.fullmatch(url) and len(url) <= longest:
        return None
    if not url:
        return "no_url"
    if "\0" in url:
        return "nul_in_url"
    if not _encodes(url):
        return "not_utf8"
    scheme = url[: url.find(":")].lower() if ":" in url else ""
    if scheme in _OTHER_SCHEMES:  # before the length: a picture inside its address is always long
        return _OTHER_SCHEMES[scheme]
    if len(url.encode()) > longest:
        return "url_too_long"
    if _CONTROL.search(url):
        return "bad_url"
    return _parts_fault(url)


def _parts_fault(url: str) -> str | None:
    try:
        address = urlsplit(url)
        host, _ = address.hostname, address.port
    except ValueError:  # an IPv6 address without its bracket, a port that is no number
        return "bad_url"
    if address.scheme in ("http", "https"):
        return "bad_url" if not host or _NO_HOST.search(address.netloc) else None
    if len(address.scheme) == 1:  # a drive of Windows
        return "file_url"
    named = "." in address.scheme or not address.scheme  # "www.x.com:80/a.jpg" has no scheme, whatever it looks like
    return "relative_url" if named else "other_scheme"


def _path_fault(path: str | None) -> str | None:
    if not path:
        return "no_path"
    return None if _encodes(path) else "not_utf8"


def _encodes(text: str) -> bool:
    """Whether it can be stored: a lone surrogate (JSON can hold one) is no text for Arrow or a file."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
