"""Copies among the training images, and which one of them survives."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.select.config import Near
from stages.select.likeness import Pictures, same_pictures

#: Survivor of an image that is no copy of another one.
NONE = -1

Survivors = NDArray[np.int64]
"""Per row of a table the row whose copy it is and that survives, or :data:`NONE`."""


def best_first(images: pa.Table) -> NDArray[np.int64]:
    """Rows in the order in which copies are preferred: more pixels, more bytes, smaller `image_uid`."""
    ranked = pa.table(
        {
            "pixels": pc.multiply(images["width"].cast(pa.int64()), images["height"].cast(pa.int64())),
            "bytes": images["bytes"],
            "image_uid": images["image_uid"],
        }
    )
    keys = [("pixels", "descending"), ("bytes", "descending"), ("image_uid", "ascending")]
    return pc.sort_indices(ranked, sort_keys=keys).to_numpy().astype(np.int64)


def exact_copies(images: pa.Table, order: NDArray[np.int64]) -> Survivors:
    """Survivors among rows with equal stored bytes or equal decoded pixels.

    Equal bytes decode to equal pixels, so comparing `pixel_sha256` finds both.
    """
    digest = images["pixel_sha256"].combine_chunks().dictionary_encode()
    group = digest.indices.to_numpy()[order]  # in order of preference
    first = np.full(len(digest.dictionary), len(order), dtype=np.int64)
    np.minimum.at(first, group, np.arange(len(order)))
    survivors = np.full(len(order), NONE, dtype=np.int64)
    copy = first[group] != np.arange(len(order))
    survivors[order[copy]] = order[first[group[copy]]]
    return survivors


def near_copies(images: pa.Table, order: NDArray[np.int64], near: Near) -> Survivors:
    """Survivors among nearly equal pictures, best first: a row falls to the best survivor that shows the same picture.

    A survivor never falls itself, so a chain of small changes does not remove pictures that differ. Which rows survive
    depends on the rows alone, not on their order.
    """
    pictures = Pictures.of(images, near.hash).take(order)
    # Identical signatures stand or fall together; without this, thousands of blank images would be compared in pairs.
    packed = np.concatenate([pictures.words.view(np.uint8), pictures.thumbnails], axis=1)
    whole = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, first, group = np.unique(whole, return_index=True, return_inverse=True)
    leaders = np.sort(first)
    place_of = np.empty(len(order), dtype=np.int64)
    place_of[leaders] = np.arange(len(leaders))
    leader = place_of[first[group]]  # per row in order of preference, its signature's place among the leaders

    distinct = pictures.take(leaders)
    found = list(same_pictures(distinct, distinct, near, only_earlier=True))
    fallen_to = np.full(len(leaders), NONE, dtype=np.int64)
    if found:
        later = np.concatenate([pair[0] for pair in found])
        earlier = np.concatenate([pair[1] for pair in found])
        by_rank = np.lexsort((earlier, later))
        for row, other in zip(later[by_rank].tolist(), earlier[by_rank].tolist(), strict=True):
            if fallen_to[row] == NONE and fallen_to[other] == NONE:
                fallen_to[row] = other

    last = np.where(fallen_to == NONE, np.arange(len(leaders)), fallen_to)
    survivor = order[leaders[last[leader]]]
    result = np.full(len(order), NONE, dtype=np.int64)
    result[order] = np.where(survivor == order, NONE, survivor)
    return result
