"""Results files that give one text per image or question."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from stages.base.contract import UserError
from stages.evaluate.formats.json_file import hint_of_types, id_of, in_order, read_results
from stages.evaluate.formats.problems import Id, Problems


def read_texts(
    file: Path, id_key: str, text_key: str, noun: str, known: Collection[Id], known_file: Path, problems: Problems
) -> dict[Id, str]:
    """`[{<id_key>, <text_key>}]`: id -> text, in the ids' own order; every id of `known` needs one.

    Of several texts the first counts; an empty one is a problem, and a text all the same. `noun` is what ids are of
    ("image"). Raises UserError for a file that is no list or has no text of any id.
    """
    found: dict[Id, str] = {}
    unknown: list[Id] = []
    malformed: set[Id] = set()
    what = f"{text_key} of {noun}"
    for place, entry in enumerate(read_results(file, f'{{"{id_key}": ..., "{text_key}": ...}}')):
        key = id_of(entry, (id_key,), file, "entry", place, problems)
        if key is None:
            continue
        text = entry.get(text_key)
        if key not in known:
            unknown.append(key)
        elif key in found:
            problems.add("duplicate", file, what, key)
        elif not isinstance(text, str):
            problems.add("malformed", file, what, key, f"no {text_key} that is a string")
            malformed.add(key)
        else:
            if not text.strip():
                problems.add("empty", file, what, key)
            found[key] = text
    hint = hint_of_types(known, unknown)
    if not found:
        # What is wrong with the entries there are says more than that all others are missing.
        told = f"; {problems.told()}" if problems else f" ({hint})" if hint else ""
        raise UserError(f"{file}: no {text_key} of any {noun} of {known_file}{told}")
    problems.add_all("unknown", file, noun, unknown, hint or f"not in {known_file}")
    problems.add_all("missing", file, what, [key for key in known if key not in found and key not in malformed])
    return {key: found[key] for key in in_order(found)}
