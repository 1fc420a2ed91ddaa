"""Lists that are one JSON document, parsed whole."""

from __future__ import annotations

import json
from typing import Any

from stages.ingest.files import BadFile, InputFile


def read_document(file: InputFile, keys: tuple[str, ...], what: str) -> dict[str, list[Any]]:
    """The lists a document holds, those of `keys` at least. Raises BadFile when it is no such document (no `what`)."""
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
