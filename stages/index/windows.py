"""Finds crops: hashes of a picture's parts, computed from its patch, looked up among the hashes of whole pictures.

A crop of a picture resembles one of a few *windows* of it. The hash of a window follows from the 16x16 `patch` that
the signals keep, by two small matrix products, so one patch of 256 bytes stands for a grid of hashes and no picture is
decoded again. A hash says of 64 low frequencies of the luminance whether their DCT-II coefficients are positive; unlike
`phash` it takes the lowest 64 by their distance from zero, not a square of 8x8, since high frequencies suffer most from
a shift, and compares with zero, so that the hash of a mirrored picture follows from the picture's.

What is found here are candidates; `stages/index/alignment.py` confirms them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from stages.imaging.perceptual_hash import PATCH_SIDE
from stages.index.hamming import Rows, distances, near_between

Patches = NDArray[np.uint8]
"""Luminance [n, 16, 16]."""
Hashes = NDArray[np.uint64]

_WHOLE = (0.0, 1.0)
_SIDES = {0.95: [(0.0, 0.95), (0.05, 1.0)], 0.9: [(0.0, 0.9), (0.05, 0.95), (0.1, 1.0)]}
#: (left, right, top, bottom) in shares of the sides: the whole, what a crop to 95% and to 90% of both sides leaves in
#: four and nine places, and to 90% of one side in three. A crop between two of them is near enough to one.
WINDOWS = np.array(
    [
        (*_WHOLE, *_WHOLE),
        *((*across, *down) for share in _SIDES.values() for across in share for down in share),
        *((*across, *_WHOLE) for across in _SIDES[0.9]),
        *((*_WHOLE, *down) for down in _SIDES[0.9]),
    ]
)
#: Positions of a picture: 1 is added where it is mirrored, 2 where it is upside down, 4 where it is transposed last.
POSITIONS = tuple(range(8))
#: Per position the one that undoes it.
INVERSE = np.array([0, 1, 2, 3, 4, 6, 5, 7])

#: Share of the places of a patch that must differ from a neighbour by more than `_STEP` grey levels. In plainer
#: pictures (a shape on a plain ground, a blank page) signs of coefficients are noise, and some part of one resembles
#: some part of another: with 0.45, 13 of easy-vqa's 4,000 training shapes matched a test shape; with 0.55 none takes
#: part, and no photograph fewer.
LEAST_TEXTURE = 0.55
_STEP = 4

_BITS, _FREQUENCIES = 64, 10
_BATCH = 1024  # patches transformed at a time: what they need stays in a core's cache
_SAMPLES = 96  # points at which a window is evaluated before its transform: many, so that it is as good as the integral
#: Factor by which the matrices are rounded to integers. Products of integers are exact in float64 here, so a hash is
#: the same on every machine and in every batch.
_SCALE = 1 << 13


def _lowest() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Vertical and horizontal frequencies of the bits: the 64 lowest but the mean, with (u, v) also (v, u)."""
    places = [(u, v) for u in range(_FREQUENCIES) for v in range(u + 1) if u]
    chosen: list[tuple[int, int]] = []
    for u, v in sorted(places, key=lambda place: (place[0] ** 2 + place[1] ** 2, place)):
        both = [(u, v)] if u == v else [(u, v), (v, u)]
        if len(chosen) + len(both) <= _BITS:
            chosen += both
    down, across = np.array(chosen).T
    return down, across


DOWN, ACROSS = _lowest()
_PLACES = list(zip(DOWN.tolist(), ACROSS.tolist(), strict=True))
_TRANSPOSED = np.array([_PLACES.index((across, down)) for down, across in _PLACES])


def cosines(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthonormal DCT-II basis [..., 16] of a patch at places [...] along a side, 0..1, between its pixels too."""
    frequency = np.arange(PATCH_SIDE)
    size = np.where(frequency == 0, 1, np.sqrt(2)) / np.sqrt(PATCH_SIDE)
    return size * np.cos(np.pi * places[..., None] * frequency)


def _transform(begin: float, end: float) -> NDArray[np.float64]:
    """Matrix [10, 16] from a row of a patch to the lowest frequencies of its part from `begin` to `end`, scaled."""
    places = begin + (end - begin) * (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    lowest = scipy.fft.dct(np.eye(_SAMPLES), axis=0, norm="ortho")[:_FREQUENCIES]
    dct = scipy.fft.dct(np.eye(PATCH_SIDE), axis=0, norm="ortho")
    return np.asarray(np.round(lowest @ cosines(places) @ dct * _SCALE))


_INTERVALS = sorted(
    {(a, b) for left, right, top, bottom in WINDOWS.tolist() for a, b in ((left, right), (top, bottom))}
)
_TRANSFORMS = {interval: _transform(*interval) for interval in _INTERVALS}


def window_hashes(patches: Patches) -> Hashes:
    """The hash of each window of each patch, uint64 [n, windows]; the first is that of the whole."""
    hashes = np.empty((len(patches), len(WINDOWS)), dtype=np.uint64)
    for begin in range(0, len(patches), _BATCH):
        part = slice(begin, begin + _BATCH)
        pixels = patches[part].astype(np.float64)
        rows = {interval: matrix @ pixels for interval, matrix in _TRANSFORMS.items()}  # [n, 10, 16]
        for number, (left, right, top, bottom) in enumerate(WINDOWS.tolist()):
            low = rows[top, bottom] @ _TRANSFORMS[left, right].T
            hashes[part, number] = _packed(low[:, DOWN, ACROSS] > 0)
    return hashes


def turned_hashes(hashes: Hashes, position: int) -> Hashes:
    """Hashes of the same pictures in another position, in the same shape."""
    odd = (ACROSS % 2 if position & 1 else 0) ^ (DOWN % 2 if position & 2 else 0)
    flipped = hashes ^ _packed(np.broadcast_to(np.asarray(odd) > 0, (1, _BITS)))[0]
    if not position & 4:
        return flipped
    bits = np.unpackbits(flipped.astype(">u8")[..., None].view(np.uint8), axis=-1)
    return _packed(bits[..., _TRANSPOSED] > 0)


def turned_patches(patches: Patches, positions: NDArray[np.int64]) -> Patches:
    """Each patch in its position [n]."""
    turned = patches.copy()
    for bit, axis in ((1, 2), (2, 1)):
        some = (positions & bit) > 0
        turned[some] = np.flip(turned[some], axis)
    some = (positions & 4) > 0
    turned[some] = turned[some].swapaxes(1, 2)
    return turned


def textured(patches: Patches) -> NDArray[np.bool_]:
    """Which patches have structure enough to be recognised by a part, bool [n]."""
    levels = patches.astype(np.int16)
    across = np.abs(np.diff(levels, axis=2))[:, :-1]
    down = np.abs(np.diff(levels, axis=1))[:, :, :-1]
    return (np.maximum(across, down) > _STEP).mean(axis=(1, 2)) >= LEAST_TEXTURE


class CropCandidates(NamedTuple):
    """Pairs of a query and a picture of the base, sorted, each once: where one resembles a window of the other."""

    query: Rows
    base: Rows
    distance: NDArray[np.int16]
    """Different bits of the two hashes that are nearest."""
    window: NDArray[np.int64]
    """Number of the window in :data:`WINDOWS`."""
    position: NDArray[np.int64]
    """Position of the picture of the base in which it resembles the query."""
    of_base: NDArray[np.bool_]
    """Whether the window is one of the base's picture (the query is its crop), or one of the query."""

    def part(self, begin: int, end: int) -> CropCandidates:
        """Some of the pairs."""
        return CropCandidates(*(column[begin:end] for column in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class WindowBase:
    """Pictures in which queries are looked up."""

    wholes: Hashes
    """[n * positions], those of one position together."""
    windows: Hashes
    """[n * windows * positions], sorted by position, then picture; empty if only windows of queries are compared."""
    positions: tuple[int, ...]

    @staticmethod
    def of(hashes: Hashes, positions: Sequence[int] = POSITIONS, own_windows: bool = True) -> WindowBase:
        """From :func:`window_hashes`; without `own_windows` a query is found by its windows alone."""
        wholes = [turned_hashes(hashes[:, 0], position) for position in positions]
        windows = [turned_hashes(hashes, position).ravel() for position in positions] if own_windows else []
        none = np.empty(0, dtype=np.uint64)
        return WindowBase(np.concatenate([none, *wholes]), np.concatenate([none, *windows]), tuple(positions))


def candidates(queries: Hashes, base: WindowBase, radius: int) -> CropCandidates:
    """Pairs in which the whole of one is at most `radius` bits from a window of the other; `queries` [n, windows].

    The base is meant to be the smaller set: each query costs one lookup per window among the wholes of the base, and
    one of its whole among the windows of the base.
    """
    columns = [_columns(*part) for part in _found(queries, base, radius)]
    query, held, distance, window, position, of_base = (np.concatenate(column) for column in zip(*columns, strict=True))
    # The nearest of each pair; among equally near ones the first window.
    order = np.lexsort((position, window, of_base, distance, held, query))
    query, held = query[order], held[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (query[1:] != query[:-1]) | (held[1:] != held[:-1])
    order = order[first]
    return CropCandidates(
        query[first], held[first], distance[order], window[order], position[order], of_base[order] > 0
    )


def _found(
    queries: Hashes, base: WindowBase, radius: int
) -> list[tuple[Rows, Rows, NDArray[np.int16], Rows, Rows, bool]]:
    """(query, base, distance, window, position, whether the window is the base's) of the two searches."""
    count = len(WINDOWS)
    pictures = len(base.wholes) // len(base.positions)
    positions = np.array(base.positions)
    # Whole against whole is in one of the searches: in the second, unless the base has no windows.
    first = 1 if len(base.windows) else 0
    mine = np.ascontiguousarray(queries[:, first:]).reshape(-1, 1)
    row, other, apart = _pairs(mine, base.wholes[:, None], radius)
    window, position = row % (count - first) + first, positions[other // max(pictures, 1)]
    found = [(row // (count - first), other % max(pictures, 1), apart, window, position, False)]
    row, other, apart = _pairs(np.ascontiguousarray(queries[:, :1]), base.windows[:, None], radius)
    place, each = other % count, max(pictures * count, 1)
    found.append((row, other % each // count, apart, place, positions[other // each], True))
    return found


def _pairs(queries: Hashes, base: Hashes, radius: int) -> tuple[Rows, Rows, NDArray[np.int16]]:
    parts = list(near_between(queries, base, radius))
    none = np.empty(0, dtype=np.int64)
    row = np.concatenate([none, *(row for row, _ in parts)])
    other = np.concatenate([none, *(other for _, other in parts)])
    return row, other, distances(queries[row], base[other])


def _columns(
    query: Rows, base: Rows, distance: NDArray[np.int16], window: Rows, position: Rows, of_base: bool
) -> tuple[NDArray[Any], ...]:
    return query, base, distance, window, position, np.full(len(query), int(of_base))


def _packed(bits: NDArray[np.bool_]) -> Hashes:
    """Bits [..., 64] as uint64 [...], the first the highest."""
    octets = np.ascontiguousarray(np.packbits(bits, axis=-1))
    return octets.view(">u8").astype(np.uint64)[..., 0]
