"""What `pairmill score` prints and writes: one JSON object or a table, and a file of per-sample scores."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.base.contract import UserError

_ENDINGS = (".jsonl", ".parquet")


def check_per_sample(file: Path | None) -> None:
    """Raise UserError, before anything is computed, for a file that could not be written."""
    if file is None:
        return
    if file.suffix not in _ENDINGS:
        raise UserError(f"--per-sample {file}: the ending decides the format; it can be {' or '.join(_ENDINGS)}")
    if not os.path.isdir(file.absolute().parent):  # where Path.is_dir raises: a name that is too long
        raise UserError(f"--per-sample {file}: no folder {file.parent}; make it or name another")


def write_per_sample(columns: Mapping[str, Sequence[Any]], file: Path) -> None:
    """Write one row per sample. Raises UserError when it cannot be written."""
    try:
        if file.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table({k: _one_type(v) for k, v in columns.items()}), file, compression="zstd")
            return
        names = list(columns)
        with open(file, "w", encoding="utf-8", newline="\n") as text:
            for row in zip(*columns.values(), strict=True):
                record = dict(zip(names, row, strict=True))
                text.write(json.dumps(record, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"--per-sample {file}: cannot be written ({error.strerror or error}); name another") from None


def _one_type(values: Sequence[Any]) -> list[Any]:
    # Ids may be numbers in one entry and strings in the next, or of any size; a column is of one type.
    numbers = [v for v in values if isinstance(v, int)]
    large = any(not -(2**63) <= v < 2**63 for v in numbers)
    as_text = large or (numbers and any(isinstance(v, str) for v in values))
    texts = [v if v is None else str(v) for v in values] if as_text else list(values)
    return [v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for v in texts]


def print_json(content: Mapping[str, Any]) -> None:
    """The one object on standard output."""
    print(json.dumps(content, indent=1, allow_nan=False))


def print_line(text: str) -> None:
    """A line on standard output; characters that its encoding lacks are escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def note(text: str) -> None:
    """A line on standard error."""
    print(f"pairmill: {text}", file=sys.stderr)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Plain columns, the first to the left, the others to the right."""
    table = [list(headings), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(headings))]
    for row in table:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print_line("  ".join(cells).rstrip())


def figure(value: float) -> str:
    """Four decimals: enough to tell results apart; --json has all digits."""
    return f"{value:.4f}"
