"""Identifies an image by its decoded pixels: their digest, DCT perceptual hashes, a tiny thumbnail and a grey patch.

Shared by two stages that must agree to the bit: `signals` hashes the fetched images, `index` hashes the benchmarks'
images and compares the two. The column names in :data:`BITS` are those of the `signals` tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.fftpack
from numpy.typing import NDArray
from PIL import Image

#: Perceptual hashes and their length in bits.
BITS = {"phash": 64, "phash_rgb": 192, "phash_d4": 64}
THUMBNAIL_SIDE = 8
#: Bytes of one thumbnail: RGB, 8 bits a channel.
THUMBNAIL_BYTES = 3 * THUMBNAIL_SIDE**2
PATCH_SIDE = 16
#: Bytes of one patch: luminance, 8 bits a pixel.
PATCH_BYTES = PATCH_SIDE**2

_SIDE, _LOW = 32, 8  # ImageHash's defaults: hash_size=8, highfreq_factor=4


def pixel_sha256(rgb: Image.Image) -> str:
    """Hex sha256 of width, height (4 bytes each, little-endian) and the RGB bytes row by row."""
    digest = hashlib.sha256(rgb.width.to_bytes(4, "little") + rgb.height.to_bytes(4, "little"))
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def perceptual_signature(rgb: Image.Image) -> dict[str, Any]:
    """`phash` and `phash_d4` (luminance, 16 hex digits each), `phash_rgb` (red, green, blue: 48), `thumbnail`, `patch`.

    `phash` equals `imagehash.phash(rgb)`: a 32x32 Lanczos reduction, its DCT-II, and for each of the 8x8 lowest
    frequencies whether it exceeds their median. The thumbnail (8x8 RGB, 192 bytes row by row) is the mean of 4x4 pixels
    of the same reduction, which a resized copy changes by less than a box filter over the original would.

    `phash_d4` is the `phash` of the same reduction turned and mirrored into a canonical position
    (:func:`_canonical`), so that a copy that was turned by quarters or mirrored is near the original as well.

    The patch (16x16 luminance, 256 bytes row by row) is that reduction reduced by Lanczos once more. It holds the
    frequencies from which the hashes of any part of the image follow (`stages/index/windows.py`), which a mean of 2x2
    pixels would blur: after a crop it correlates with its original's by 0.995 rather than 0.97.
    """
    grey = np.asarray(rgb.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    colour = np.asarray(rgb.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    planes = np.concatenate([grey[None], np.moveaxis(colour, 2, 0)])  # [4, 32, 32]
    # scipy's transform rather than a matrix product: in flat areas coefficients are rounding noise, compared as well.
    low = scipy.fftpack.dct(scipy.fftpack.dct(planes, axis=1), axis=2)[:, :_LOW, :_LOW].reshape(4, -1)
    bits = low > np.median(low, axis=1, keepdims=True)
    digits = np.packbits(bits, axis=1).tobytes().hex()
    turned = _canonical(low[0].reshape(_LOW, _LOW))
    turned_digits = np.packbits(turned > np.median(turned)).tobytes().hex()
    block = _SIDE // THUMBNAIL_SIDE
    sums = colour.reshape(THUMBNAIL_SIDE, block, THUMBNAIL_SIDE, block, 3).sum(axis=(1, 3), dtype=np.int32)
    small = ((sums + block**2 // 2) // block**2).astype(np.uint8)
    hashes = {"phash": digits[:16], "phash_rgb": digits[16:], "phash_d4": turned_digits}
    patch = Image.fromarray(grey).resize((PATCH_SIDE, PATCH_SIDE), Image.Resampling.LANCZOS)
    return {**hashes, "thumbnail": small.tobytes(), "patch": patch.tobytes()}


def _canonical(low: NDArray[np.float64]) -> NDArray[np.float64]:
    """The coefficients [8, 8] of the one among the eight positions (quarter turns, mirrored or not) that is canonical.

    Mirroring an image changes the sign of its DCT-II coefficients of odd frequency along that axis, and transposing it
    transposes them; so the eight positions cost no further transform. Canonical is: brighter on the left and above by
    the lowest frequency, and more energy right of the diagonal than below it. Three decisions by strong coefficients
    hold better under re-encoding and cropping than the smallest of the eight hashes, which one bit can change into
    another one altogether (docs/signals.md has the figures).
    """
    signs = np.where(np.arange(_LOW) % 2, -1.0, 1.0)
    if low[0, 1] < 0:
        low = low * signs
    if low[1, 0] < 0:
        low = low * signs[:, None]
    squares = low**2
    return low.T if np.tril(squares, -1).sum() > np.triu(squares, 1).sum() else low


def hash_words(digits: Iterable[str], bits: int) -> NDArray[np.uint64]:
    """Hex hashes as uint64 words [n, bits / 64]; raises ValueError for a hash of another length."""
    joined = "".join(digits)
    width = bits // 64
    words = np.frombuffer(bytes.fromhex(joined), dtype=">u8").astype(np.uint64)
    if len(joined) % (bits // 4):
        raise ValueError(f"a hash that is not {bits} bits long")
    return words.reshape(-1, width)


def thumbnail_array(thumbnails: Iterable[bytes]) -> NDArray[np.uint8]:
    """Thumbnails as a uint8 array [n, 192]."""
    return np.frombuffer(b"".join(thumbnails), dtype=np.uint8).reshape(-1, THUMBNAIL_BYTES)


def patch_array(patches: Iterable[bytes]) -> NDArray[np.uint8]:
    """Patches as a uint8 array [n, 16, 16]."""
    return np.frombuffer(b"".join(patches), dtype=np.uint8).reshape(-1, PATCH_SIDE, PATCH_SIDE)
