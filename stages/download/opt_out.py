"""Opt-outs: reads response headers and tdmrep.json for what forbids the use of an image."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from email.message import Message
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protego import Protego

#: Directives with a value, whose colon does not follow a crawler's name (Google's list of rules).
_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
#: Directives for which `none` stands.
_NONE = ("noindex", "nofollow")


def directives(values: Sequence[str], token: str) -> Iterator[str]:
    """The `X-Robots-Tag` directives addressed to everyone or to the crawler `token`, in lower case.

    A crawler's name followed by a colon applies to the rest of its header line.
    """
    for line in values:
        addressed = True
        for part in line.lower().split(","):
            name, colon, value = (text.strip() for text in part.partition(":"))
            if colon and name not in _VALUED:
                addressed = name in ("*", token)
                name = value
            if addressed and name:
                yield from (_NONE if name == "none" else (name,))


class OptOut:
    """Checks response headers for opt-outs that concern one crawler."""

    def __init__(self, forbidding: Collection[str], token: str, tdm: bool) -> None:
        """`forbidding`: directives that forbid use; `tdm`: whether a reservation of mining rights does as well."""
        self._forbidding = frozenset(directive.strip().lower() for directive in forbidding)
        self._token = token.lower()
        self._tdm = tdm

    def __call__(self, headers: Message) -> str:
        """The header that forbids the use of a response's body; empty if there is none."""
        if self._forbidding and (values := headers.get_all("X-Robots-Tag")):
            for directive in directives(values, self._token):
                if directive in self._forbidding:
                    return f"X-Robots-Tag: {directive}"
        if self._tdm and str(headers.get("tdm-reservation", "")).strip() == "1":
            return "tdm-reservation: 1"
        return ""


def tdm_rules(content: bytes) -> Protego | None:
    """The locations that a tdmrep.json reserves, as rules for `can_fetch(url, "*")`; None for no reservation.

    Its `location` patterns are those of robots.txt (TDM Reservation Protocol, W3C community group report), of which
    the longest match decides. A file with errors reserves nothing, as the group decided.
    """
    from protego import Protego

    try:
        entries = json.loads(content)
    except (ValueError, RecursionError):
        return None
    lines = ["User-agent: *"]
    for entry in entries if isinstance(entries, list) else [entries]:
        location = entry.get("location") if isinstance(entry, dict) else None
        reserved = entry.get("tdm-reservation") if location is not None else None
        if isinstance(location, str) and reserved in (0, 1, "0", "1"):
            pattern = "".join(location.split()).replace("#", "%23")
            lines.append(f"{'Disallow' if int(reserved) else 'Allow'}: {pattern}")
    return Protego.parse("\n".join(lines)) if any(line.startswith("Disallow") for line in lines) else None
