"""What a benchmark asks of a model: one example per text to be written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.contract import UserError

Id = int | str


@dataclass(frozen=True)
class Example:
    """One text to be written about one image."""

    id: Id
    """The question's id, or the image's where there is no question."""
    image_id: Id
    file_name: str
    """The image's file name as the benchmark lists it; empty where it does not."""
    question: str
    """Empty for captions."""


def read_records(file: Path, key: str) -> list[Mapping[str, Any]]:
    """The list under a key of a JSON file. Raises UserError when there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; put the benchmark's {key} there or name the right one") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not JSON ({error}); get the file again") from None
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{file}: no list of {key!r} in it; is it the right file?")
    return records


def required(record: Mapping[str, Any], name: str, file: Path, row: int) -> Any:
    """A record's field. Raises UserError naming file and row when it is missing."""
    if name not in record:
        raise UserError(f"{file}: record {row} has no {name!r}; is it the right file?")
    return record[name]
