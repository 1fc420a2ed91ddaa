"""Rows with equal keys over all ranges, and the first of each kind: by an exchange to buckets of keys and one back.

Each range sends the first of its own rows with a key, so that a bucket receives a key of millions of rows once per
range; the bucket names the first of all and answers those that are not alone.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base.exchange import Exchange, bucket_of
from stages.base.splitmix import mixed
from stages.base.uids import bytes_of
from stages.index.columns import Rows, binary, first_of

#: The answers: row -> the first row of all with its key, where at least two ranges have it.
_ANSWER = pa.schema([("row", pa.int64()), ("leader", pa.int64())])


def send_firsts(out: Exchange, number: int, keys: NDArray[np.uint8], rows: Rows, spread: NDArray[np.uint64]) -> Rows:
    """Send the first rows of a range's keys [n, bytes]; returns for each row the place of the first with its key.

    `rows` are the global rows, ascending; `spread` decides the bucket: equal for equal keys, and of evenly spread
    values, uint64 [n].
    """
    first = first_of(keys)
    own = np.flatnonzero(first == np.arange(len(first)))
    table = pa.table({"key": binary(keys[own]), "row": pa.array(rows[own])})
    out.write(number, table, bucket_of(spread[own], out.buckets))
    return first


def received(keys: Exchange, bucket: int) -> tuple[NDArray[np.uint8], Rows]:
    """Keys [n, bytes] and rows [n] of one bucket, in order of the rows."""
    table = keys.read(bucket)
    return bytes_of(table["key"]), table["row"].to_numpy()


def answer(out: Exchange, bucket: int, rows: Rows, first: Rows, range_of: NDArray[np.int64]) -> None:
    """Answer a bucket's rows whose key another row has: `first` is the place of the first with the same key, and
    `range_of` the range to which each answer goes."""
    shared = np.bincount(first, minlength=len(first))[first] > 1
    table = pa.table({"row": rows[shared], "leader": rows[first[shared]]}, schema=_ANSWER)
    out.write(bucket, table, range_of[shared])


def leaders(answers: Exchange, number: int, first: Rows, rows: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    """Per row of a range (global `rows`, ascending) the first of all with its key, and whether it is not the only one.

    `first` is what :func:`send_firsts` returned.
    """
    leader = rows[first]
    shared = np.bincount(first, minlength=len(first))[first] > 1
    told = answers.read(number)
    place = np.searchsorted(rows, told["row"].to_numpy())
    foreign, among = leader.copy(), shared.copy()
    foreign[place], among[place] = told["leader"].to_numpy(), True
    return foreign[first], among[first]


def spread(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Evenly spread 64 bits for each row of words [n, words], which may be anything."""
    out: NDArray[np.uint64] = np.zeros(len(words), dtype=np.uint64)
    for column in words.T:
        out = mixed(out ^ column)
    return out
