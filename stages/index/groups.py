"""The passes between reading a range and finishing it: groups of equal pixels, then what is asked of their first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from stages.imaging.perceptual_hash import BITS
from stages.index import equal
from stages.index.cells import PairFile
from stages.index.columns import first_of
from stages.index.config import Hash
from stages.index.crops import HeldPatches, crop_matches
from stages.index.hamming import Words
from stages.index.matches import Pictures, near_matches
from stages.index.near import NearCopies
from stages.index.schema import NEAR
from stages.index.work import IndexWork


def settle_pixels(work: IndexWork, bucket: int) -> None:
    """Bucket by bucket: tell the ranges which images have the pixels of others."""
    digests, rows = equal.received(work.exchange("pixels"), bucket)
    equal.answer(work.exchange("groups"), bucket, rows, first_of(digests), work.thumbnails.range_of(rows))


def group_range(work: IndexWork, number: int) -> int:
    """Range by range: `group` and `copies` of each image, and the signatures of those that lead; returns how many do.

    Also asks other ranges for the classes of the leaders that lie there.
    """
    it = work.ranges[number]
    decoded = np.asarray(work.column("decoded").of(number))
    leader, copies = equal.leaders(
        work.exchange("groups"), number, np.asarray(work.column("first").of(number)), decoded
    )
    place = decoded - it.first_image
    group, copied = np.full(it.images, -1, dtype=np.int64), np.zeros(it.images, dtype=bool)
    group[place], copied[place] = leader, copies
    work.column("group").write(number, group)
    work.column("copies", "bool").write(number, copied)
    foreign = np.unique(leader[leader < it.first_image])  # the first of a group never lies in a later range
    asked = pa.table({"leader": foreign, "from": np.full(len(foreign), number)})
    work.exchange("asked").write(number, asked, work.thumbnails.range_of(foreign))
    leads = np.flatnonzero(leader == decoded)
    for name in work.hashes:
        NearCopies(work, name).send(number, _words(work, name, number)[leads], decoded[leads])
    return len(leads)


def settle_classes(work: IndexWork, hash: Hash, bucket: int) -> tuple[int, int, PairFile]:
    """Bucket by bucket: :meth:`NearCopies.settle`."""
    return NearCopies(work, hash).settle(bucket)


def classes_of_range(
    work: IndexWork, radius: Sequence[int], held: Sequence[Pictures], most: int, number: int
) -> list[pa.Table]:
    """Range by range: answer what others asked, and compare the classes with the benchmarks' images.

    Returns per hash a table `NEAR`: `first` is a global row that leads its class, `second` a row of `held`.
    """
    matches = []
    decoded = np.asarray(work.column("decoded").of(number))
    for name, bits, base in zip(work.hashes, radius, held, strict=True):
        copies = NearCopies(work, name)
        copies.reply(number)
        rows, leader, _ = copies.classes_of_leads(number)
        firsts = rows[leader == rows]
        found = NEAR.empty_table()
        if len(base):
            pictures = _pictures(work, name, number, np.searchsorted(decoded, firsts))
            found = near_matches(pictures, base, bits, most)
            found = found.set_column(0, "first", pa.array(firsts[found["first"].to_numpy()]))
        matches.append(found)
    return matches


def crops_of_range(work: IndexWork, held: HeldPatches, most: int, number: int) -> pa.Table:
    """Range by range: look for crops between the pictures that lead their group and the benchmarks' images.

    Returns a table `stages.index.crops.MATCHES`: `first` is a global row, `second` a row of the benchmarks' images.
    """
    it = work.ranges[number]
    group = np.asarray(work.column("group").of(number))
    rows = np.flatnonzero(group == np.arange(it.first_image, it.first_image + it.images))
    found = crop_matches(work.patches.of(number), rows, held, most)
    return found.set_column(0, "first", pa.array(found["first"].to_numpy() + it.first_image))


def _pictures(work: IndexWork, hash: Hash, number: int, places: np.ndarray) -> Pictures:
    """Some of a range's decoded images, by their places among these."""
    rows = np.asarray(work.column("decoded").of(number))[places] - work.ranges[number].first_image
    return Pictures(hash, _words(work, hash, number)[places], np.asarray(work.thumbnails.of(number)[rows]))


def _words(work: IndexWork, hash: Hash, number: int) -> Words:
    return np.asarray(work.words(hash).of(number)).reshape(-1, BITS[hash] // 64)
