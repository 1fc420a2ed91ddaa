"""JSON files of records: reading them, the ids of their entries, and results that give one text per id."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base.contract import UserError
from stages.formats.problems import Id, ProblemLog, Problems

_LARGEST = 1e50


def read_json(file: Path) -> Any:
    """The contents of a JSON file, which may be compressed (`.gz`). Raises UserError."""
    try:
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
        return json.loads(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; name the right one") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}); name a readable file") from None
    except EOFError:
        raise UserError(f"{file}: the compressed file ends too early; get it again") from None
    except zlib.error:
        raise UserError(f"{file}: the compressed file is damaged; get it again") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        what = error.msg.removesuffix(" at")
        raise UserError(f"{file}: not JSON ({what} at {where}); get or write the file again") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 (byte {error.start:,}); write the file again as UTF-8") from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise UserError(f"{file}: a number in it has too many digits; write the file again") from None
    except RecursionError:
        raise UserError(f"{file}: nested too deeply; is it the right file?") from None


def records_under(content: Any, key: str, file: Path | str) -> list[Any]:
    """The list under a key; its entries may be anything. Raises UserError when there is none."""
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise UserError(f"{file}: no list {key!r} in it; is it the right file?")
    return found


def is_id(value: Any) -> bool:
    """Whether a value can be an id: a string or a whole number."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def id_of(entry: Any, keys: tuple[str, ...], item: str, position: int, log: ProblemLog) -> Id | None:
    """An entry's id under the first of `keys` that it has; None, and a problem in the log, when it has none.

    `item` is what an entry is ("annotation"), `position` its place in the file's list, counted from 0.
    """
    if not isinstance(entry, Mapping):
        log.add("malformed", f"{item} number", position, "no object")
        return None
    for key in keys:
        if key in entry:
            if is_id(entry[key]):
                found: Id = entry[key]
                return found
            log.add("malformed", f"{item} number", position, f"{key} is neither a number nor a string")
            return None
    log.add("malformed", f"{item} number", position, f"no {keys[0]}")
    return None


def in_order(ids: Iterable[Id]) -> list[Id]:
    """Ids sorted, numbers before strings, so that the order of a file's entries does not matter."""
    return sorted(ids, key=lambda entry: (isinstance(entry, str), entry))


def finite(value: Any) -> bool:
    """Whether a value is a real number, and not so large that products of such numbers are infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def hint_of_types(known: Collection[Id], given: Collection[Id]) -> str:
    """A remark where ids are numbers in one file and strings in the other, a frequent mistake; else empty."""
    one, other = ({type(entry) for entry in ids} for ids in (known, given))
    if one and other and not one & other and one | other == {int, str}:
        return "ids are numbers in one file and strings in the other"
    return ""


@dataclass(frozen=True)
class TextResults:
    """A results file with one text per image or question: captions or answers."""

    file: Path
    texts: dict[Id, str]
    """Id -> text, sorted by id."""
    problems: Problems

    @property
    def ids(self) -> list[Id]:
        """The ids that have a text."""
        return list(self.texts)


def read_text_results(
    file: Path, id_key: str, text_key: str, noun: str, known: Collection[Id], known_file: Path
) -> TextResults:
    """`[{<id_key>, <text_key>}]`; every id of `known`, those of `known_file`, needs a text.

    Of several texts the first counts; an empty one is a problem, and a text all the same. `noun` is what ids are of
    ("image"). Raises UserError for a file that is no list or has no text of any known id.
    """
    entries = read_json(file)
    if not isinstance(entries, list):
        raise UserError(f'{file}: not a list; results are [{{"{id_key}": ..., "{text_key}": ...}}, ...]')
    texts: dict[Id, str] = {}
    unknown: list[Id] = []
    malformed: set[Id] = set()
    item = f"{text_key} of {noun}"
    log = ProblemLog(file)
    for position, entry in enumerate(entries):
        key = id_of(entry, (id_key,), "entry", position, log)
        if key is None:
            continue
        text = entry.get(text_key)
        if key not in known:
            unknown.append(key)
        elif key in texts:
            log.add("duplicate", item, key)
        elif not isinstance(text, str):
            log.add("malformed", item, key, f"no {text_key} that is a string")
            malformed.add(key)
        else:
            if not text.strip():
                log.add("empty", item, key)
            texts[key] = text
    hint = hint_of_types(known, unknown)
    if not texts:
        # Faults of the entries that are there explain more than that all others are missing.
        faults = log.problems()
        why = f"; {faults.summary()}" if faults else f" ({hint})" if hint else ""
        raise UserError(f"{file}: no {text_key} of any {noun} of {known_file}{why}")
    log.add_all("unknown", noun, unknown, hint or f"not in {known_file}")
    log.add_all("missing", item, [key for key in known if key not in texts and key not in malformed])
    return TextResults(file, {key: texts[key] for key in in_order(texts)}, log.problems())
