"""What tells whether two images are the same picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.signals.family import Cost, ImageFamily, NoConfig

if TYPE_CHECKING:
    from PIL.Image import Image


class Hashes(ImageFamily[NoConfig]):
    """`pixel_sha256`, `phash`, `phash_rgb`, `phash_d4` (hex) and `thumbnail` (8x8 RGB), as
    `stages/imaging/perceptual_hash.py` defines them."""

    name = "hashes"
    columns = {
        "pixel_sha256": "string",
        "phash": "string",
        "phash_rgb": "string",
        "phash_d4": "string",
        "thumbnail": "binary[192]",
    }
    cost = Cost(6)

    def prepare(self, rgb: Image) -> dict[str, Any]:
        """See the class."""
        from stages.imaging.perceptual_hash import perceptual_signature, pixel_sha256

        return {"pixel_sha256": pixel_sha256(rgb), **perceptual_signature(rgb)}
