"""What a text list is written in: its encoding and its line ends, by configuration or from its first bytes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stages.ingest.files import BadFile, InputFile

#: Bytes at the start of a list from which :func:`text_form` decides.
HEAD = 1 << 16
_PIECE = 1 << 20
#: Longer marks first: that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, None),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = re.compile(r"utf[-_ ]?(16|32)", re.IGNORECASE)
#: Name of an error handler that puts half a surrogate pair, which is no UTF-8, where bytes do not decode: so the row is
#: rejected as `not_utf8`, like one of a list in UTF-8.
_UNDECODABLE = "pairmill.undecodable"
codecs.register_error(_UNDECODABLE, lambda error: ("\udcff", getattr(error, "end", 0)))


def checked_encoding(name: str) -> str:
    """Python's name of a text encoding. Raises ValueError for one that it does not know."""
    try:
        "".encode(name)
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise ValueError(f"{name} is no encoding of texts; name one as Python does, e.g. cp1252, utf-16-le") from None


@dataclass(frozen=True)
class TextForm:
    """What a list is written in."""

    encoding: str | None = None
    """null: UTF-8."""
    mark: int = 0
    """Bytes of the byte-order mark at its start."""
    carriage_returns: bool = False
    """Whether lines end with a carriage return alone, as old Macs wrote them (Excel's "CSV (Macintosh)" does today)."""

    @property
    def wide(self) -> bool:
        """Whether a character takes several bytes of which any may look like a line end (UTF-16, UTF-32)."""
        return self.encoding is not None and _WIDE.match(self.encoding) is not None

    @property
    def divisible(self) -> bool:
        """Whether the bytes can be cut at line feeds, so that ranges of the list are read apart from each other."""
        return not self.wide and not self.carriage_returns

    def utf8(self, line: bytes) -> bytes:
        """A line of a divisible list as UTF-8."""
        if self.encoding is None or line.isascii():
            return line
        return line.decode(self.encoding, _UNDECODABLE).encode("utf-8", "surrogatepass")

    def pieces(self, handle: BinaryIO) -> Iterator[bytes]:
        """The list after its mark as UTF-8 with line feeds, in pieces that may end anywhere."""
        handle.read(self.mark)
        decoder = codecs.getincrementaldecoder(self.encoding or "utf-8")(_UNDECODABLE)
        held = ""
        while True:
            raw = handle.read(_PIECE)
            text = held + decoder.decode(raw, final=not raw)
            if self.carriage_returns:
                # A pair of both ends one line, also where a piece ends between them.
                held = "\r" if raw and text.endswith("\r") else ""
                text = text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n")
            yield text.encode("utf-8", "surrogatepass")
            if not raw:
                return


def text_form(file: InputFile, head: bytes, encoding: str | None = None) -> TextForm:
    """What a list is written in, from its first :data:`HEAD` bytes and the configured encoding.

    A byte-order mark decides, whatever is configured. Raises BadFile for UTF-16 that neither states.
    """
    found, mark = encoding, 0
    for bom, named in _MARKS:
        if head.startswith(bom):
            found, mark = named, len(bom)
            break
    if found is None and mark == 0 and (guess := _unmarked(head)):
        raise BadFile(
            file, "wrong_encoding", f"its bytes look like {guess} without a byte-order mark: set encoding={guess}"
        )
    plain = found is None or checked_encoding(found) in ("utf-8", "utf-8-sig", "ascii")
    form = TextForm(None if plain else found, mark)
    start = head[mark:] if not form.wide else head[mark:].decode(str(form.encoding), "ignore").encode("utf-8", "ignore")
    return TextForm(form.encoding, mark, b"\r" in start.removesuffix(b"\r") and b"\n" not in start)


def decoded(content: bytes) -> str:
    """A whole text in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark. Raises UnicodeDecodeError."""
    for bom, named in _MARKS:
        if content.startswith(bom):
            return content[len(bom) :].decode(named or "utf-8")
    return content.decode("utf-8")


def _unmarked(head: bytes) -> str | None:
    """UTF-16 that texts in a Latin script give away: every second byte is 0, and hardly any other."""
    zeros = [head[start::2].count(0) / max(1, len(head) // 2) for start in (0, 1)]
    if len(head) < 8 or max(zeros) < 0.4 or min(zeros) > 0.1:
        return None
    return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
