"""Finds copies among the training images and chooses which one survives, from the near-duplicates in the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.select.config import Near

#: Survivor of an image that is not a copy of another one.
NONE = -1

Survivors = NDArray[np.int64]
"""For each row of the index's images, the surviving row of which it is a copy, or :data:`NONE`."""


def preference(
    images: pa.Table, rows: NDArray[np.int64], survivor: Sequence[str], image_only: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Rank of each row of `images`, int64 [images], 0 for the most preferred; -1 outside `rows`.

    `survivor` is `selection.duplicates.survivor`; rows are in order of their uids. An image that is listed without a
    text (`image_only`, bool [images]; None: there are none) comes after all that have one, so that no text is lost for
    a copy without. Raises UserError for a key that is not a numeric column.
    """
    keys: list[NDArray[Any]] = [np.arange(len(rows))]
    for key in reversed(survivor):
        if key != "uid":
            keys.append(_descending(images, rows, key))
    if image_only is not None:
        keys.append(image_only[rows])
    rank = np.full(images.num_rows, -1, dtype=np.int64)
    rank[rows[np.lexsort(keys)]] = np.arange(len(rows))
    return rank


def _descending(images: pa.Table, rows: NDArray[np.int64], key: str) -> NDArray[np.float64] | NDArray[np.int64]:
    """A sort key that puts what `key` prefers first."""
    if key == "source":
        return images["source"].to_numpy()[rows].astype(np.int64)
    if key == "pixels":
        pixels = pc.multiply(images["width"].cast(pa.int64()), images["height"].cast(pa.int64()))
        return -pc.fill_null(pixels, 0).to_numpy()[rows]
    name = key.removeprefix("-")
    known = [n for n, t in zip(images.column_names, images.schema.types, strict=True) if _numeric(t)]
    if name not in known:
        raise UserError(
            f"selection.duplicates.survivor={key}: not a numeric column of images; use pixels, source, uid or one of "
            + ", ".join(known)
        )
    values = images[name].cast(pa.float64()).to_numpy()[rows]
    ascending = values if key.startswith("-") else -values
    return np.where(np.isnan(ascending), np.inf, ascending)


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def exact_copies(group: NDArray[np.int32], rows: NDArray[np.int64], rank: NDArray[np.int64]) -> Survivors:
    """Survivors among those of `rows` with equal decoded pixels.

    Equal bytes decode to equal pixels, so comparing pixels finds both.
    """
    survivors = np.full(len(group), NONE, dtype=np.int64)
    best = _best(group, rows, rank)
    first = best[group[rows]]
    copy = first != rows
    survivors[rows[copy]] = first[copy]
    return survivors


def _best(label: NDArray[np.int32], rows: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Per label the row with the smallest rank, or -1."""
    best = np.full(len(label), -1, dtype=np.int64)
    in_order = rows[np.argsort(-rank[rows], kind="stable")]
    best[label[in_order]] = in_order  # the last write wins: the smallest rank
    return best


def near_copies(
    classes: NDArray[np.int32],
    near: pa.Table,
    rule: Near,
    rows: NDArray[np.int64],
    rank: NDArray[np.int64],
) -> Survivors:
    """Survivors among those of `rows` that are near-duplicates, best first.

    A row is dropped for the best survivor that is its near-duplicate. Survivors are never dropped themselves, so a
    chain of small changes does not remove images that differ. `classes` and `near` are those of
    `stages.index.reader.Index`: all images of a class are kept or dropped together, and an edge applies to all images
    of both classes.
    """
    survivors = np.full(len(classes), NONE, dtype=np.int64)
    best = _best(classes, rows, rank)
    edges = near.filter(pa.array(confirmed(near, rule)))
    one = classes[edges["first"].to_numpy()]
    two = classes[edges["second"].to_numpy()]
    present = (one != two) & (best[one] >= 0) & (best[two] >= 0)
    one, two = best[one[present]], best[two[present]]
    swap = rank[one] > rank[two]
    earlier, later = np.where(swap, two, one), np.where(swap, one, two)
    order = np.lexsort((rank[earlier], rank[later]))
    copy_of: dict[int, int] = {}
    for row, other in zip(later[order].tolist(), earlier[order].tolist(), strict=True):
        if row not in copy_of and other not in copy_of:
            copy_of[row] = other

    last = np.arange(len(classes), dtype=np.int64)
    last[list(copy_of)] = list(copy_of.values())
    final = last[best[classes[rows]]]
    copy = final != rows
    survivors[rows[copy]] = final[copy]
    return survivors


def confirmed(candidates: pa.Table, near: Near) -> NDArray[np.bool_]:
    """Which rows of a table with `distance`, `difference`, `relative_difference` are near-duplicates by a rule."""
    close = candidates["distance"].to_numpy() <= near.radius
    if near.max_difference is None and near.max_relative_difference is None:
        return close
    agree = np.zeros(candidates.num_rows, dtype=bool)
    # In the precision in which the index stores them: a bound of 0.07 includes a stored 0.07.
    if near.max_difference is not None:
        agree |= candidates["difference"].to_numpy() <= np.float32(near.max_difference)
    if near.max_relative_difference is not None:
        agree |= candidates["relative_difference"].to_numpy() <= np.float32(near.max_relative_difference)
    return close & agree
