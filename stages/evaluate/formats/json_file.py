"""Reading a JSON file and its records; every mistake is one line that names the file and the place."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.base.contract import UserError
from stages.evaluate.formats.problems import Id, Problems

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


def records_under(content: Any, key: str, file: Path) -> list[Any]:
    """The list under a key. Raises UserError when there is none; the entries may be anything yet."""
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise UserError(f"{file}: no list {key!r} in it; is it the right file?")
    return found


def read_results(file: Path, what: str) -> list[Any]:
    """A results file: a list of entries. Raises UserError."""
    content = read_json(file)
    if not isinstance(content, list):
        raise UserError(f"{file}: not a list; results are [{what}, ...]")
    return content


def is_id(value: Any) -> bool:
    """Whether a value can be an id: a string or a whole number."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def id_of(entry: Any, keys: tuple[str, ...], file: Path, what: str, place: int, problems: Problems) -> Id | None:
    """An entry's id under the first key it has; None, and a problem, when the entry has none."""
    if not isinstance(entry, Mapping):
        problems.add("malformed", file, f"{what} number", place, "no object")
        return None
    for key in keys:
        if key in entry:
            if is_id(entry[key]):
                found: Id = entry[key]
                return found
            problems.add("malformed", file, f"{what} number", place, f"{key} is neither a number nor a string")
            return None
    problems.add("malformed", file, f"{what} number", place, f"no {keys[0]}")
    return None


def in_order(ids: Any) -> list[Id]:
    """Ids in an order of their own, numbers before strings, so that the order of a file's entries means nothing."""
    return sorted(ids, key=lambda entry: (isinstance(entry, str), entry))


def finite(value: Any) -> bool:
    """Whether a value is a real number, and not so large that products of such numbers are infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def hint_of_types(known: Any, given: Any) -> str:
    """Words for the case that ids are numbers in one file and strings in the other; else empty."""
    one, other = ({type(entry) for entry in ids} for ids in (known, given))
    if one and other and not one & other and one | other == {int, str}:
        return "ids are numbers in one file and strings in the other"
    return ""
