"""Evaluates the bounds of `selection.rules` over columns of the index, vectorised.

`image_checks` and `pair_checks` list the checks that a config enables, in the order in which they apply;
:func:`failing` evaluates one of them on a table.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.index.config import Hash
from stages.index.schema import PAIRS, images_schema
from stages.select.bounds import Bounds, Rules

#: Column -> the family of `signals.families` that writes it (docs/signals.md), for messages.
_FAMILIES = {
    **dict.fromkeys(("aspect_ratio", "width", "height"), "size"),
    **dict.fromkeys(("brightness", "contrast", "entropy"), "tone"),
    **dict.fromkeys(("sharpness", "nsfw", "text_coverage", "faces"), ""),  # families named like their column
    **dict.fromkeys(("characters", "words", "repetition", "letters", "digits", "longest_word", "has_url"), "text"),
    **dict.fromkeys(("language", "language_score"), "language"),
    **dict.fromkeys(("similarity", "similarity_l14", "unsafe", "watermark", "aesthetic"), "listed"),
    "clip_similarity": "clip",
}

#: Columns of pairs that say something of the image: what a list says besides. All others are about the text.
_OF_THE_IMAGE = frozenset({"aesthetic", "unsafe", "watermark", "listed_nsfw", "listed_width", "listed_height"})

#: Columns of images and of pairs that no family of signals has measured.
_NOT_MEASURED = frozenset(images_schema(get_args(Hash)).names), frozenset(PAIRS.names)

#: A column of a table, or booleans of its length.
Column: TypeAlias = Any  # pyarrow has no types of its own

#: Field of `Rules` -> columns, and a function of them and of `bound` that returns which rows fail.
_Known: TypeAlias = Mapping[str, tuple[tuple[str, ...], Callable[..., Column]]]


@dataclass(frozen=True)
class Check:
    """One rule: rows for which `fails` is true are dropped for `reason`."""

    reason: str
    key: str
    """Its key below `selection.rules`, for messages."""
    columns: tuple[str, ...]
    fails: Callable[..., Column]
    """Function of the columns that returns booleans; null where a value is missing."""
    missing: bool = False
    """Whether a row without a value is dropped as well."""


def image_checks(rules: Rules) -> list[Check]:
    """Bounds on an image, in order. Whether it decodes is checked elsewhere."""
    known: _Known = {
        "min_bytes": (("bytes",), _below),
        "min_side": (("width", "height"), _shorter_below),
        "max_side": (("width", "height"), _longer_above),
        "max_aspect_ratio": (("aspect_ratio",), _above),
        "min_entropy": (("entropy",), _below),
        "min_sharpness": (("sharpness",), _below),
        "max_nsfw": (("nsfw",), _above),
        "max_text_coverage": (("text_coverage",), _above),
        "min_faces": (("faces",), _below),
        "max_faces": (("faces",), _above),
    }
    return _enabled(rules, known)


def pair_checks(rules: Rules) -> list[Check]:
    """Bounds on a caption and on its listed columns, in order: the language first, since it says why a caption of no
    spaces has few words, or why one has few letters."""
    judged = ("language",) if rules.language_confidence is None else ("language", "language_score")
    known: _Known = {
        "languages": (judged, partial(_not_among, confidence=rules.language_confidence)),
        "min_characters": (("characters",), _below),
        "max_characters": (("characters",), _above),
        "min_words": (("words",), _below),
        "max_words": (("words",), _above),
        "max_repetition": (("repetition",), _above),
        "min_letters": (("letters",), _below),
        "max_digits": (("digits",), _above),
        "min_language_score": (("language_score",), _below),
        "min_similarity": (("similarity",), _below),
        "min_similarity_l14": (("similarity_l14",), _below),
        "min_clip_similarity": (("clip_similarity",), _below),
        "min_aesthetic": (("aesthetic",), _below),
        "max_unsafe": (("unsafe",), _above),
        "max_watermark": (("watermark",), _above),
    }
    return _enabled(rules, known)


def column_checks(rules: Rules, images: pa.Table, pairs: pa.Table) -> tuple[list[Check], list[Check]]:
    """The bounds of `rules.where` on images' and on pairs' columns, each in alphabetical order.

    Raises UserError for a column that no table has or that cannot be compared with the bounds.
    """
    checks: tuple[list[Check], list[Check]] = ([], [])
    for name in sorted(rules.where):
        bounds = rules.where[name]
        key = f"where.{name}"
        table, number = owner(name, key, images, pairs)
        drop = (bounds.missing or rules.missing) == "drop"
        checks[number].append(Check(f"rule.{name}", key, (name,), _outside(bounds, table[name].type, key), drop))
    return checks


def owner(name: str, key: str, images: pa.Table, pairs: pa.Table) -> tuple[pa.Table, int]:
    """The table with a measured column, and its number (0 images, 1 pairs). Raises UserError if there is none."""
    for number, table in enumerate((images, pairs)):
        if name in table.column_names and (name not in _NOT_MEASURED[number] or name in ("host", "length")):
            return table, number
    raise _unknown(key, name, images, pairs)


def verify(checks: list[Check], table: pa.Table, images: pa.Table, pairs: pa.Table) -> None:
    """Raise UserError if a check needs a column that its table does not have."""
    for check in checks:
        for name in check.columns:
            if name not in table.column_names:
                raise _unknown(check.key, name, images, pairs)


def failing(check: Check, table: pa.Table, image_only: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Which rows of a table fail a check. Of `pairs`, `image_only` are those without a caption (None: there are none):
    what is missing of their text does not count."""
    fails = check.fails(*(table[name] for name in check.columns))
    failed = pc.fill_null(fails, check.missing).to_numpy().astype(bool, copy=False)
    return failed if image_only is None else failed & ~without_text(check.columns[0], table, image_only)


def without_text(column: str, table: pa.Table, image_only: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows of `pairs` lack a value in a column about the text because they are image-only, bool [rows]."""
    if column in _OF_THE_IMAGE:
        return np.zeros(len(image_only), dtype=bool)
    return image_only & table[column].is_null().to_numpy().astype(bool, copy=False)


def numeric_values(table: pa.Table, column: str) -> NDArray[np.float64]:
    """A numeric column as float64, NaN where a value is missing. Raises UserError for any other column."""
    kind = table[column].type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise UserError(f"selection.rules.fractions.{column}: the column holds {kind}, which has no rank")
    return table[column].cast(pa.float64()).to_numpy()


def measured(images: pa.Table, pairs: pa.Table) -> list[str]:
    """Names of all columns written by families of signals."""
    own = _NOT_MEASURED[0] | _NOT_MEASURED[1]
    return sorted(name for table in (images, pairs) for name in table.column_names if name not in own)


def _unknown(key: str, name: str, images: pa.Table, pairs: pa.Table) -> UserError:
    known = measured(images, pairs)
    near = difflib.get_close_matches(name, known, n=1) if name not in _FAMILIES else []
    hint = f"did you mean {near[0]}? " if near else ""
    if name == "clip_similarity":
        remedy = "name a CLIP model in `signals.clip.model`"
    elif name in _FAMILIES:
        remedy = f"add `{_FAMILIES[name] or name}` to `signals.families`"
    else:
        remedy = f"add the family that writes `{name}` to `signals.families`"
    return UserError(
        f"selection.rules.{key}: no source was measured for `{name}`; {hint}{remedy}, or drop the rule (measured: "
        f"{', '.join(known)})"
    )


def _enabled(rules: Rules, known: _Known) -> list[Check]:
    checks = []
    for name, (columns, fails) in known.items():
        bound = getattr(rules, name)
        if bound is None:
            continue
        if isinstance(bound, dict):
            columns, fails = (*columns, "language"), partial(_per_language, fails=fails)
        reason = "rule.language" if name == "languages" else f"rule.{name}"
        checks.append(Check(reason, name, columns, partial(fails, bound=bound), rules.missing == "drop"))
    return checks


def _like(bound: float, column: Column) -> pa.Scalar:
    # In the column's precision, so that a stored 0.3 (float32) is not below a bound of 0.3.
    return pa.scalar(bound, column.type) if pa.types.is_floating(column.type) else pa.scalar(bound)


def _below(column: Column, bound: float) -> Column:
    return pc.less(_number(column), _like(bound, column))


def _above(column: Column, bound: float) -> Column:
    return pc.greater(_number(column), _like(bound, column))


def _number(column: Column) -> Column:
    # NaN means that nothing was measured: it is neither below nor above a bound.
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


def _shorter_below(width: Column, height: Column, bound: int) -> Column:
    return pc.less(pc.min_element_wise(width, height, skip_nulls=False), bound)


def _longer_above(width: Column, height: Column, bound: int) -> Column:
    return pc.greater(pc.max_element_wise(width, height, skip_nulls=False), bound)


def _not_among(column: Column, score: Column | None = None, *, bound: list[str], confidence: float | None) -> Column:
    # A caption without a language (null) is in none of them, whatever its score.
    foreign = pc.invert(pc.is_in(column, value_set=pa.array(bound, pa.string())))
    if score is None or confidence is None:
        return foreign
    unsure = pc.and_(pc.is_valid(column), pc.fill_null(_below(score, confidence), True))
    return pc.and_(foreign, pc.invert(unsure))


def _per_language(column: Column, language: Column, bound: dict[str, float], fails: Callable[..., Column]) -> Column:
    named = pa.array([code for code in bound if code != "other"], pa.string())
    listed = pc.is_in(language, value_set=named)  # false for null
    failed = pc.and_kleene(pc.invert(listed), fails(column, bound["other"])) if "other" in bound else None
    for code in named.to_pylist():
        mine = pc.and_kleene(pc.fill_null(pc.equal(language, code), False), fails(column, bound[code]))
        failed = mine if failed is None else pc.or_kleene(failed, mine)
    return failed


def _outside(bounds: Bounds, kind: pa.DataType, key: str) -> Callable[[Column], Column]:
    if bounds.among is not None:
        values = kind.value_type if pa.types.is_dictionary(kind) else kind
        try:
            allowed = pa.array(bounds.among, values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise UserError(
                f"selection.rules.{key}.in={bounds.among}: the column holds {values}; list values of that type"
            ) from None
        return partial(_not_in, allowed=allowed)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise UserError(f"selection.rules.{key}: the column holds {kind}, which has no min and max; use in: [...]")
    return partial(_beyond, low=bounds.min, high=bounds.max)


def _not_in(column: Column, allowed: pa.Array) -> Column:
    plain = column.cast(allowed.type) if pa.types.is_dictionary(column.type) else column
    return pc.if_else(pc.is_null(plain), pa.scalar(None, pa.bool_()), pc.invert(pc.is_in(plain, value_set=allowed)))


def _beyond(column: Column, low: float | None, high: float | None) -> Column:
    failed = None
    for bound, compare in ((low, _below), (high, _above)):
        if bound is not None:
            fails = compare(column, bound)
            failed = fails if failed is None else pc.or_(failed, fails)
    return failed
