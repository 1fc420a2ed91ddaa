"""The rules: which rows of the signal tables fail which bound first, vectorised over Arrow batches.

`image_checks` and `pair_checks` list the rules that a config switches on, in the order in which they are stated there;
`first_failure` turns a batch into a small table of row id and number of the first rule failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from stages.select.config import Rules

#: Number of "no rule failed" in the column `failed`.
PASSED = -1

#: A column of a batch, or booleans of its length.
Column: TypeAlias = Any  # pyarrow has no types of its own


#: (bound or None, name, columns, function of the columns and `bound`)
_Stated: TypeAlias = tuple[Any, str, tuple[str, ...], Callable[..., Column]]


@dataclass(frozen=True)
class Check:
    """One rule: rows for which `fails` is true are dropped for `reason`."""

    reason: str
    columns: tuple[str, ...]
    fails: Callable[..., Column]
    """Takes the columns, returns booleans; null (nothing was measured) counts as false."""


def image_checks(rules: Rules) -> list[Check]:
    """Rules on an image, in order; an image that does not decode fails always."""
    stated: list[_Stated] = [
        (rules.min_bytes, "min_bytes", ("bytes",), _below),
        (rules.min_side, "min_side", ("width", "height"), _shorter_below),
        (rules.max_side, "max_side", ("width", "height"), _longer_above),
        (rules.max_aspect_ratio, "max_aspect_ratio", ("aspect_ratio",), _above),
        (rules.min_entropy, "min_entropy", ("entropy",), _below),
    ]
    return [Check("rule.undecodable", ("decoded",), pc.invert), *_switched_on(stated)]


def pair_checks(rules: Rules) -> list[Check]:
    """Rules on a caption and on what its list says, in order."""
    return _switched_on(
        [
            (rules.min_characters, "min_characters", ("characters",), _below),
            (rules.max_characters, "max_characters", ("characters",), _above),
            (rules.min_words, "min_words", ("words",), _below),
            (rules.max_words, "max_words", ("words",), _above),
            (rules.max_repetition, "max_repetition", ("repetition",), _above),
            (rules.languages, "language", ("language",), _not_among),
            (rules.min_language_score, "min_language_score", ("language_score",), _below),
            (rules.min_similarity, "min_similarity", ("similarity",), _below),
            (rules.max_unsafe, "max_unsafe", ("unsafe",), _above),
            (rules.max_watermark, "max_watermark", ("watermark",), _above),
        ]
    )


def first_failure(batch: pa.Table, checks: list[Check], keep: list[str]) -> pa.Table:
    """The columns `keep` and `failed` (int8): the position in `checks` of the first rule failed, or :data:`PASSED`."""
    failed = pa.chunked_array([pa.nulls(batch.num_rows, pa.int8())])
    for number, check in enumerate(checks):
        fails = pc.fill_null(check.fails(*(batch[column] for column in check.columns)), False)
        failed = pc.coalesce(failed, pc.if_else(fails, pa.scalar(number, pa.int8()), pa.scalar(None, pa.int8())))
    return batch.select(keep).append_column("failed", pc.fill_null(failed, PASSED))


def _switched_on(stated: list[_Stated]) -> list[Check]:
    return [
        Check(f"rule.{name}", columns, partial(fails, bound=bound))
        for bound, name, columns, fails in stated
        if bound is not None
    ]


def _like(bound: float, column: Column) -> pa.Scalar:
    # In the column's own precision, so that a stored 0.3 (float32) is not below a bound of 0.3.
    return pa.scalar(bound, column.type) if pa.types.is_floating(column.type) else pa.scalar(bound)


def _below(column: Column, bound: float) -> Column:
    return pc.less(column, _like(bound, column))


def _above(column: Column, bound: float) -> Column:
    return pc.greater(column, _like(bound, column))


def _shorter_below(width: Column, height: Column, bound: int) -> Column:
    return pc.less(pc.min_element_wise(width, height), bound)


def _longer_above(width: Column, height: Column, bound: int) -> Column:
    return pc.greater(pc.max_element_wise(width, height), bound)


def _not_among(column: Column, bound: list[str]) -> Column:
    # A caption without a language (null) is in none of them.
    return pc.invert(pc.is_in(column, value_set=pa.array(bound, pa.string())))
