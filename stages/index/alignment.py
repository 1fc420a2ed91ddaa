"""Confirms that one picture is a crop of another: lays its patch over a window of the other's and compares them.

A window found by its hash is off by up to a few per cent of a side, which 8x8 thumbnails cannot bear. So its four edges
are fitted to the pixels, by Gauss-Newton steps over edges, gain and offset (Lucas and Kanade, IJCAI 1981, for
translation), on patches that are continuous between their pixels as sums of cosines. Then two figures are taken.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from stages.imaging.perceptual_hash import PATCH_SIDE
from stages.index.windows import ACROSS, DOWN, INVERSE, WINDOWS, CropCandidates, Patches, cosines, turned_patches

Reals = NDArray[np.float64]

_BATCH = 1024  # pairs compared at a time: some 50 MB of working memory
_STEPS = 5
_LONGEST = 0.03  # of a side, that an edge moves in one step: the cosines are linear about so far
_EDGES = np.array([[-0.04, 0.8, -0.04, 0.8], [0.2, 1.04, 0.2, 1.04]])  # within which they stay
_LEAST_GAIN = 0.2
#: Share of the patch that an overlay must leave, and of its contrast.
_LEAST_LEFT, _LEAST_CONTRAST = 0.6, 0.5
#: Residuals of this many standard deviations weigh a quarter.
_OUTLYING = 3.0

_CENTRES = (np.arange(PATCH_SIDE) + 0.5) / PATCH_SIDE
_DCT = scipy.fft.dct(np.eye(PATCH_SIDE), axis=0, norm="ortho")
#: From the pixels of a patch to its low frequencies [64, 256]. The spectrum of photographs falls with frequency; times
#: its square root they count more evenly, and what all radiographs have in common counts less.
_LOW = np.stack([np.outer(_DCT[u], _DCT[v]).ravel() for u, v in zip(DOWN, ACROSS, strict=True)])
_LOW *= np.sqrt(np.hypot(DOWN, ACROSS))[:, None]


def compare(queries: Patches, base: Patches, found: CropCandidates) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(correlation, uncovered correlation) of each candidate, float32 [n], rounded to four digits.

    The first is the correlation of the low frequencies of a picture and the other's window. The second leaves out
    what an overlay (a logo, a line of text) may have covered: places where the two differ much more than elsewhere have
    little weight; it is 0 where less than 60% of the picture, or half of its contrast, is left.
    """
    results = [np.empty((2, 0))]
    for begin in range(0, len(found.query), _BATCH):
        part = found.part(begin, begin + _BATCH)
        of_base = part.of_base[:, None, None]
        mine, theirs = queries[part.query], base[part.base]
        # The position is that of the base's picture: where its window is compared, the query takes the inverse one.
        whole = np.where(of_base, mine, theirs)
        whole = turned_patches(whole, np.where(part.of_base, INVERSE[part.position], part.position))
        results.append(_fitted(whole, np.where(of_base, theirs, mine), WINDOWS[part.window]))
    whole_, uncovered = np.round(np.concatenate(results, axis=1), 4).astype(np.float32)
    return whole_, uncovered


def _fitted(whole: Patches, other: Patches, windows: Reals) -> Reals:
    """[2, n]: both correlations of patches [n, 16, 16] with windows [n, 4] of other patches, after the fits."""
    target = whole.astype(np.float64)
    spectrum = _DCT @ other.astype(np.float64) @ _DCT.T
    edges, best, correlation = windows.copy(), windows.copy(), np.full(len(target), -1.0)
    low = target.reshape(len(target), -1) @ _LOW.T
    for _ in range(_STEPS):
        picture, slopes = _window(spectrum, edges)
        fit = _cosine(low, picture.reshape(len(picture), -1) @ _LOW.T)
        better = fit > correlation
        correlation[better], best[better] = fit[better], edges[better]
        flat = np.concatenate([slopes, picture[:, None]], axis=1).reshape(len(target), 5, -1)
        edges = _moved(edges, flat @ _LOW.T, low)
    edges, uncovered = best, np.zeros(len(target))
    for _ in range(_STEPS):
        picture, slopes = _window(spectrum, edges)
        weights, fit = _uncovered(target, picture)
        uncovered = np.maximum(uncovered, fit)
        root = np.sqrt(weights)[:, None]
        flat = np.concatenate([slopes, picture[:, None], np.ones_like(picture)[:, None]], axis=1)
        flat = flat.reshape(len(target), 6, -1) * root
        edges = _moved(edges, flat, (target.reshape(len(target), -1)[:, None] * root)[:, 0])
    return np.stack([correlation, uncovered])


def _window(spectrum: Reals, edges: Reals) -> tuple[Reals, Reals]:
    """The windows [n, 16, 16], and by how much each pixel grows with each edge [n, 4, 16, 16]."""
    left, right, top, bottom = edges.T[..., None]
    across, down = left + (right - left) * _CENTRES, top + (bottom - top) * _CENTRES  # [n, 16]
    columns, rows = cosines(across).swapaxes(1, 2), cosines(down)
    half = rows @ spectrum
    by_x = half @ _slopes(across).swapaxes(1, 2)
    by_y = _slopes(down) @ spectrum @ columns
    slopes = [by_x * (1 - _CENTRES), by_x * _CENTRES, by_y * (1 - _CENTRES)[:, None], by_y * _CENTRES[:, None]]
    return half @ columns, np.stack(slopes, axis=1)


def _slopes(places: Reals) -> Reals:
    """The derivatives of :func:`cosines` [..., 16]."""
    frequency = np.arange(PATCH_SIDE)
    return -np.sqrt(2 / PATCH_SIDE) * np.pi * frequency * np.sin(np.pi * places[..., None] * frequency)


def _moved(edges: Reals, terms: Reals, target: Reals) -> Reals:
    """Edges [n, 4] after a least-squares step: `target` [n, k] by `terms` [n, 5 or 6, k], slopes before the picture."""
    square = terms @ terms.swapaxes(1, 2)
    # A little damping keeps plain pictures solvable, whose slopes are all zero.
    square += np.eye(terms.shape[1]) * 0.01
    solution = np.linalg.solve(square, terms @ target[..., None])[..., 0]
    gain = solution[:, 4:5]
    steps = np.where(np.abs(gain) < _LEAST_GAIN, 0, solution[:, :4] / np.where(gain == 0, 1, gain))
    return np.clip(edges + np.clip(steps, -_LONGEST, _LONGEST), *_EDGES)


def _uncovered(target: Reals, picture: Reals) -> tuple[Reals, Reals]:
    """Weights [n, 256] of the pixels by their residuals, and the weighted correlation [n]."""
    left, right = target.reshape(len(target), -1), picture.reshape(len(picture), -1)
    weights = np.ones_like(left)
    for _ in range(3):
        one, other = _centred(left, weights), _centred(right, weights)
        gain = (weights * one * other).sum(axis=1) / np.maximum((weights * other**2).sum(axis=1), 1)
        residual = np.abs(one - gain[:, None] * other)
        # 1.48 median deviations are a standard deviation of normal residuals; one grey level is rounding.
        spread = 1.48 * np.median(residual, axis=1, keepdims=True) + 1
        weights = 1 / (1 + (residual / (_OUTLYING * spread)) ** 2) ** 2
    one, other = _centred(left, weights), _centred(right, weights)
    variance = (weights * one**2).sum(axis=1)
    fit = (weights * one * other).sum(axis=1)
    fit /= np.sqrt(np.maximum(variance * (weights * other**2).sum(axis=1), 1e-9))
    contrast = np.sqrt(variance / weights.sum(axis=1)) / np.maximum(left.std(axis=1), 1e-9)
    enough = (weights.mean(axis=1) >= _LEAST_LEFT) & (contrast >= _LEAST_CONTRAST)
    return weights, np.where(enough, fit, 0)


def _centred(values: Reals, weights: Reals) -> Reals:
    return values - (weights * values).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)


def _cosine(left: Reals, right: Reals) -> Reals:
    """Correlation of vectors [n, k] whose means do not count."""
    size = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return np.asarray((left * right).sum(axis=1) / np.maximum(size, 1e-9))
