"""What tells whether two images are the same picture."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from PIL import Image

from stages.imagehash import THUMBNAIL_BYTES, perceptual_signature, pixel_sha256
from stages.signals.family import ImageFamily


class Hashes(ImageFamily):
    """`pixel_sha256`, `phash`, `phash_rgb` (hex) and `thumbnail` (8x8 RGB), as `stages/imagehash.py` defines them."""

    columns = (
        ("pixel_sha256", pa.string()),
        ("phash", pa.string()),
        ("phash_rgb", pa.string()),
        ("thumbnail", pa.binary(THUMBNAIL_BYTES)),
    )

    def measure(self, rgb: Image.Image) -> dict[str, Any]:
        """See the class."""
        return {"pixel_sha256": pixel_sha256(rgb), **perceptual_signature(rgb)}
