"""Which of several copies survives: what a selection prefers, and the choice among near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.select.config import Near


def preference(
    images: pa.Table,
    rows: NDArray[np.int64],
    survivor: Sequence[str],
    image_only: Sequence[bool] = (),
) -> NDArray[np.float64]:
    """What decides which of several images survives, float64 [rows, keys]: the first key that differs, the smaller
    value; where none does, the smaller uid.

    `survivor` is `selection.duplicates.survivor`. An image that is listed without a text (`image_only` says it of each
    source) comes after all that have one, so that no text is lost for a copy without. Raises UserError for a key that
    is not a numeric column.
    """
    keys = []
    taken = images.select(_columns(images, survivor)).take(pa.array(rows))
    if any(image_only):
        keys.append(np.array(image_only, dtype=np.float64)[taken["source"].to_numpy()])
    for key in survivor:
        if key != "uid":  # always the last
            keys.append(_descending(taken, key))
    return np.stack(keys, axis=1) if keys else np.empty((len(rows), 0))


def _columns(images: pa.Table, survivor: Sequence[str]) -> list[str]:
    names = {"source"}
    for key in survivor:
        if key == "pixels":
            names |= {"width", "height"}
        elif key != "uid":
            names.add(key.removeprefix("-"))
    check_survivor(images.schema, survivor)
    return sorted(names)


def check_survivor(images: pa.Schema, survivor: Sequence[str]) -> None:
    """Raise UserError for a key of `selection.duplicates.survivor` that is not a numeric column of images."""
    known = [field.name for field in images if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)]
    known = [name for name in known if name != "group" and not name.startswith("class_")]
    for key in survivor:
        needed = {"pixels": ["width", "height"], "uid": [], "source": []}.get(key, [key.removeprefix("-")])
        if not set(needed) <= set(known):
            raise UserError(
                f"selection.duplicates.survivor={key}: not a numeric column of images; use pixels, source, uid or one "
                "of " + ", ".join(known)
            )


def _descending(images: pa.Table, key: str) -> NDArray[np.float64]:
    """A sort key that puts what `key` prefers first."""
    if key == "source":
        numbers: NDArray[np.float64] = images["source"].to_numpy().astype(np.float64)
        return numbers
    if key == "pixels":
        pixels = pc.multiply(images["width"].cast(pa.int64()), images["height"].cast(pa.int64()))
        return -pc.fill_null(pixels, 0).to_numpy().astype(np.float64)
    values = images[key.removeprefix("-")].cast(pa.float64()).to_numpy()
    ascending = values if key.startswith("-") else -values
    return np.where(np.isnan(ascending), np.inf, ascending)


def order_of(
    keys: NDArray[np.float64], words: tuple[NDArray[np.uint64], NDArray[np.uint64]], *labels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Places in order of preference, int64 [n]: by :func:`preference`'s keys and the two words of the uid; those of a
    label stay together, if labels are given."""
    return np.lexsort((words[1], words[0], *keys.T[::-1], *labels[::-1]))


def survivors(rank: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each node's survivor among near-duplicates, int64 [nodes]: itself, or the best survivor that is near it.

    `rank` (distinct) says which nodes come first; the edges lie between nodes `one` and `other`. A survivor is never
    dropped itself, so a chain of small changes does not remove images that differ: best first, a node survives unless
    one that survives is near it.
    """
    swap = rank[one] > rank[other]
    earlier, later = np.where(swap, other, one), np.where(swap, one, other)
    order = np.lexsort((rank[earlier], rank[later]))
    copy_of: dict[int, int] = {}
    for row, better in zip(later[order].tolist(), earlier[order].tolist(), strict=True):
        if row not in copy_of and better not in copy_of:
            copy_of[row] = better
    result = np.arange(len(rank), dtype=np.int64)
    result[list(copy_of)] = list(copy_of.values())
    return result


def confirmed(candidates: pa.Table, near: Near) -> NDArray[np.bool_]:
    """Which rows of a table with `distance`, `difference`, `relative_difference` are near-duplicates by a rule."""
    close: NDArray[np.bool_] = candidates["distance"].to_numpy() <= near.radius
    if near.max_difference is None and near.max_relative_difference is None:
        return close
    agree = np.zeros(candidates.num_rows, dtype=bool)
    # In the precision in which the index stores them: a bound of 0.07 includes a stored 0.07.
    if near.max_difference is not None:
        agree |= candidates["difference"].to_numpy() <= np.float32(near.max_difference)
    if near.max_relative_difference is not None:
        agree |= candidates["relative_difference"].to_numpy() <= np.float32(near.max_relative_difference)
    return close & agree
