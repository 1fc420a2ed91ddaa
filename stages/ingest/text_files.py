"""Lists that are text: lines of bounded length, in ranges of bytes that cut no line, and whole JSON documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from stages.ingest.files import BadFile, InputFile
from stages.ingest.source import Unit

#: Bytes of the longest line that is kept; of a longer one (a file without line ends, a bomb) nothing is.
LONGEST = 16 * 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def ranges(files: Sequence[InputFile], step: int, role: str = "paths") -> list[Unit]:
    """Byte ranges of `step`; a line belongs to the range that its first byte is in. Compressed files stay whole."""
    units = []
    for file in files:
        size = 0 if file.compressed else file.size()
        starts = range(0, size, step) or [0]
        units += [Unit((file,), s, min(s + step, size) if size else None, role) for s in starts]
    return units


def lines(unit: Unit) -> Iterator[bytes | None]:
    """Lines of a unit's only file without their ends; None for one longer than :data:`LONGEST`.

    Only a line feed ends a line: splitting at every Unicode line end would break captions at U+2028, \\v and the like.
    """
    (file,) = unit.files
    with file.open_text() as handle:
        position = unit.start
        if position:
            # Step back one byte: a line that begins exactly at `start` is ours, one begun before it is not.
            handle.seek(position - 1)
            position += _skip(handle) - 1
        elif handle.peek(len(BYTE_ORDER_MARK)).startswith(BYTE_ORDER_MARK):
            position += len(handle.read(len(BYTE_ORDER_MARK)))
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
