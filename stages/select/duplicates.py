"""Copies among the training images, and which one of them survives; from the pictures that the index found alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.select.config import Near

#: Survivor of an image that is no copy of another one.
NONE = -1

Survivors = NDArray[np.int64]
"""Per row of the index's images the row whose copy it is and that survives, or :data:`NONE`."""


def preference(images: pa.Table, rows: NDArray[np.int64], survivor: Sequence[str]) -> NDArray[np.int64]:
    """Rank of each row of `images`, int64 [images], 0 for the one that is kept first; -1 outside of `rows`.

    `survivor` is `selection.duplicates.survivor`; rows are in order of their uids. Raises UserError for a key that is
    no numeric column.
    """
    keys: list[NDArray[Any]] = [np.arange(len(rows))]
    for key in reversed(survivor):
        if key != "uid":
            keys.append(_descending(images, rows, key))
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
            f"selection.duplicates.survivor={key}: no numeric column of images; use pixels, source, uid or one of "
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
    """Survivors among those of `rows` that show nearly the same picture, best first.

    A row falls to the best survivor that shows the same picture. A survivor never falls itself, so a chain of small
    changes does not remove pictures that differ. `classes` and `near` are as `stages.index.reader.Index` gives them:
    members of a class stand or fall together, and an edge holds for all members of both classes.
    """
    survivors = np.full(len(classes), NONE, dtype=np.int64)
    best = _best(classes, rows, rank)
    edges = near.filter(pa.array(confirmed(near, rule)))
    one = classes[edges["first"].to_numpy()]
    two = classes[edges["second"].to_numpy()]
    there = (one != two) & (best[one] >= 0) & (best[two] >= 0)
    one, two = best[one[there]], best[two[there]]
    swap = rank[one] > rank[two]
    earlier, later = np.where(swap, two, one), np.where(swap, one, two)
    order = np.lexsort((rank[earlier], rank[later]))
    fallen_to: dict[int, int] = {}
    for row, other in zip(later[order].tolist(), earlier[order].tolist(), strict=True):
        if row not in fallen_to and other not in fallen_to:
            fallen_to[row] = other

    last = np.arange(len(classes), dtype=np.int64)
    last[list(fallen_to)] = list(fallen_to.values())
    final = last[best[classes[rows]]]
    copy = final != rows
    survivors[rows[copy]] = final[copy]
    return survivors


def confirmed(found: pa.Table, near: Near) -> NDArray[np.bool_]:
    """Which rows of a table with `distance`, `difference`, `relative_difference` are the same picture by a rule."""
    close = found["distance"].to_numpy() <= near.radius
    if near.max_difference is None and near.max_relative_difference is None:
        return close
    agree = np.zeros(found.num_rows, dtype=bool)
    # In the precision in which the index holds them: a bound of 0.07 includes a stored 0.07.
    if near.max_difference is not None:
        agree |= found["difference"].to_numpy() <= np.float32(near.max_difference)
    if near.max_relative_difference is not None:
        agree |= found["relative_difference"].to_numpy() <= np.float32(near.max_relative_difference)
    return close & agree
