"""Records of CSV and TSV lists with a header, where one bad row costs one row."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from stages.ingest.text_files import LONGEST

#: A quoted field may hold line ends, but a forgotten quotation mark must not swallow the rest of the list.
_MOST_LINES = 200


class Records:
    """Iterates over records: fields, or the reason (a fixed phrase) why a row is none.

    After a row whose quoting does not come out even, reading goes on at the next line.
    """

    def __init__(self, lines: Iterator[bytes | None], delimiter: str, quoting: bool) -> None:
        self._lines = lines
        self._again: list[bytes | None] = []  # lines looked at and given back, the next one last
        self._delimiter = delimiter
        self._quoting = quoting
        csv.field_size_limit(max(csv.field_size_limit(), 2 * LONGEST))

    def __iter__(self) -> Iterator[list[str] | str]:
        return self

    def __next__(self) -> list[str] | str:
        line = self._again.pop() if self._again else next(self._lines)
        if line is None:
            return "line_too_long"
        if not self._quoting or b'"' not in line:
            try:
                return line.decode("utf-8").split(self._delimiter)
            except UnicodeDecodeError:
                return "not_utf8"
        return self._quoted(line)

    def _quoted(self, line: bytes) -> list[str] | str:
        used = [line]
        try:
            return next(csv.reader(self._text(used), delimiter=self._delimiter, strict=True))
        except UnicodeDecodeError:
            reason = "not_utf8"
        except (csv.Error, StopIteration):
            reason = "bad_quoting"
        self._again += reversed(used[1:])
        return reason

    def _text(self, used: list[bytes]) -> Iterator[str]:
        """The lines of one record, as many as the reader requests; `used` holds them."""
        yield used[0].decode("utf-8") + "\n"
        size = len(used[0])
        while len(used) < _MOST_LINES and size < LONGEST:
            try:
                line = self._again.pop() if self._again else next(self._lines)
            except StopIteration:
                return
            if line is None:
                self._again.append(line)
                return
            used.append(line)
            size += len(line)
            yield line.decode("utf-8") + "\n"
