"""Lists that are text: lines of bounded length, in ranges of bytes that cut no line, and whole JSON documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from stages.ingest.encodings import HEAD, TextForm, text_form
from stages.ingest.files import BadFile, InputFile, damage, read_errors
from stages.ingest.source import Unit

#: Bytes of the longest line that is kept; of a longer one (a file without line ends, a bomb) nothing is.
LONGEST = 16 * 1024 * 1024


def ranges(files: Sequence[InputFile], step: int, role: str = "paths", encoding: str | None = None) -> list[Unit]:
    """Byte ranges of `step`; a line belongs to the range that its first byte is in. Files that are compressed, in
    UTF-16 or without line feeds stay whole."""
    units = []
    for file in files:
        size = 0 if file.compressed else file.size()
        if size > step and not _divisible(file, encoding):
            size = 0
        starts = range(0, size, step) or [0]
        units += [Unit((file,), s, min(s + step, size) if size else None, role) for s in starts]
    return units


def _form(file: InputFile, encoding: str | None) -> TextForm:
    with file.open_text() as handle:
        return text_form(file, handle.read(HEAD), encoding)


def _divisible(file: InputFile, encoding: str | None) -> bool:
    try:
        return _form(file, encoding).divisible
    except read_errors() as error:
        if damage(error, file) is None:
            raise
        return False  # whoever reads it says what is wrong


def lines(unit: Unit, encoding: str | None = None) -> Iterator[bytes | None]:
    """Lines of a unit's only file, as UTF-8 and without their ends; None for one longer than :data:`LONGEST`.

    Only a line feed ends a line (or, in a file that begins without any, a carriage return): splitting at every Unicode
    line end would break captions at U+2028, \\v and the like. What does not decode in `encoding` is no UTF-8 either.
    Raises BadFile for UTF-16 that nothing states.
    """
    (file,) = unit.files
    # Without a configured encoding only UTF-8 is cut into ranges.
    form = TextForm() if unit.start and encoding is None else _form(file, encoding)
    if form.divisible:
        for line in _byte_lines(unit, form):
            yield line if line is None else form.utf8(line)
        return
    with file.open_text() as handle:
        yield from _whole_lines(form.pieces(handle))


def _whole_lines(pieces: Iterator[bytes]) -> Iterator[bytes | None]:
    rest, too_long = b"", False
    for piece in pieces:
        *ended, rest = (rest + piece).split(b"\n")
        for line in ended:
            yield None if too_long or len(line) >= LONGEST else line.rstrip(b"\r")
            too_long = False
        if too_long or len(rest) >= LONGEST:
            rest, too_long = b"", True
    if too_long or rest:
        yield None if too_long else rest.rstrip(b"\r")


def _byte_lines(unit: Unit, form: TextForm) -> Iterator[bytes | None]:
    (file,) = unit.files
    with file.open_text() as handle:
        position = unit.start
        if position:
            # Step back one byte: a line that begins exactly at `start` is ours, one begun before it is not.
            handle.seek(position - 1)
            position += _skip(handle) - 1
        else:
            position += len(handle.read(form.mark))
        while unit.end is None or position < unit.end:
            line = handle.readline(LONGEST)
            if not line:
                return
            position += len(line)
            if len(line) == LONGEST and not line.endswith(b"\n"):
                position += _skip(handle)
                yield None
            else:
                yield line.rstrip(b"\r\n")


def _skip(handle: BinaryIO) -> int:
    """Read to the end of a line; returns how many bytes that took."""
    skipped = 0
    while piece := handle.readline(LONGEST):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def read_document(file: InputFile, keys: tuple[str, ...], what: str) -> dict[str, list[Any]]:
    """The lists in a JSON document, those of `keys` at least. Raises BadFile when it is not `what` (a kind of list)."""
    needs = f"it is not {what}, which needs " + " and ".join(f"`{key}`" for key in keys)
    try:
        with file.open_text() as handle:
            content = json.load(handle)
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, a number of 5,000 digits, a deep nest
        raise BadFile(file, "not_json", f"{needs} ({type(error).__name__})") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise BadFile(file, "wrong_structure", needs)
    return {key: value if isinstance(value, list) else [] for key, value in content.items()}


def known(table: dict[Any, Any], key: Any) -> Any:
    """What a table holds under a key that came from a file and may be anything."""
    return table.get(key) if isinstance(key, int | str) else None


def by_id(entries: list[Any]) -> dict[Any, dict[str, Any]]:
    """Objects of a list by their `id`, leaving out what is no object or has no usable one."""
    return {e["id"]: e for e in entries if isinstance(e, dict) and isinstance(e.get("id"), int | str)}
