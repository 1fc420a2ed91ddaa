"""Families that measure images without a network: size, tone, sharpness and hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.signals.family import Cost, ImageFamily, NoConfig

if TYPE_CHECKING:
    from PIL.Image import Image


class Size(ImageFamily[NoConfig]):
    """`width` and `height` in pixels as stored (upright), `aspect_ratio` = long side / short side. Always measured:
    they are null where the image does not decode."""

    name = "size"
    columns = {"width": "int32", "height": "int32", "aspect_ratio": "float64"}
    cost = Cost(0)

    def prepare(self, rgb: Image) -> dict[str, Any]:
        """See the class."""
        return {"width": rgb.width, "height": rgb.height, "aspect_ratio": max(rgb.size) / min(rgb.size)}


class Tone(ImageFamily[NoConfig]):
    """Of the luminance, 0..255: mean (`brightness`), standard deviation (`contrast`) and the entropy of its histogram
    in bits (`entropy`: 0 for a single grey, at most 8); `mean_rgb` per channel."""

    name = "tone"
    columns = {"brightness": "float32", "contrast": "float32", "entropy": "float32", "mean_rgb": "list<float32>"}
    cost = Cost(1.5)

    def prepare(self, rgb: Image) -> dict[str, Any]:
        """See the class; rounded to 4 digits, so that the last bit of a sum cannot differ between machines."""
        import numpy as np

        levels = np.arange(256)
        pixels = rgb.width * rgb.height
        share = np.asarray(rgb.convert("L").histogram(), dtype=np.float64) / pixels
        mean = float(share @ levels)
        deviation = float(np.sqrt(share @ (levels - mean) ** 2))
        seen = share[share > 0]
        channels = np.asarray(rgb.histogram(), dtype=np.float64).reshape(3, 256) @ levels / pixels
        return {
            "brightness": round(mean, 4),
            "contrast": round(deviation, 4),
            "entropy": round(abs(float(seen @ np.log2(seen))), 4),
            "mean_rgb": [round(float(c), 4) for c in channels],
        }


#: Pixels of the longer side at which sharpness is measured.
_SHARPNESS_SIDE = 512


class Sharpness(ImageFamily[NoConfig]):
    """`sharpness`: variance of the Laplacian of the luminance (Pech-Pacheco et al. 2000, "Diatom autofocusing in
    brightfield microscopy", ICPR), with the kernel 0 1 0 / 1 -4 1 / 0 1 0 and without the border.

    It depends on the resolution, so larger images are first reduced to 512 pixels on the longer side (bilinear with
    antialiasing, whole multiples first); smaller ones are measured as they are, since enlarging adds no detail.
    Null if a side is below 3 pixels.
    """

    name = "sharpness"
    columns = {"sharpness": "float32"}
    cost = Cost(3)

    def prepare(self, rgb: Image) -> dict[str, Any]:
        """See the class; integer arithmetic up to the last division, so that machines agree."""
        import numpy as np
        from PIL import Image

        grey = rgb.convert("L")
        longest = max(grey.size)
        if longest > _SHARPNESS_SIDE:
            size = (max(1, round(n * _SHARPNESS_SIDE / longest)) for n in grey.size)
            grey = grey.resize((next(size), next(size)), Image.Resampling.BILINEAR, reducing_gap=2.0)
        if min(grey.size) < 3:
            return {"sharpness": None}
        light = np.asarray(grey, dtype=np.int32)
        edges = light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:] - 4 * light[1:-1, 1:-1]
        count = edges.size
        total, squares = int(edges.sum(dtype=np.int64)), int((edges.astype(np.int64) ** 2).sum())
        return {"sharpness": round((count * squares - total * total) / count**2, 4)}


class Hashes(ImageFamily[NoConfig]):
    """`pixel_sha256`, `phash`, `phash_rgb`, `phash_d4` (hex), `thumbnail` (8x8 RGB) and `patch` (16x16 luminance), as
    `stages/imaging/perceptual_hash.py` defines them."""

    name = "hashes"
    version = 2  # adds `patch`
    columns = {
        "pixel_sha256": "string",
        "phash": "string",
        "phash_rgb": "string",
        "phash_d4": "string",
        "thumbnail": "binary[192]",
        "patch": "binary[256]",
    }
    cost = Cost(6)

    def prepare(self, rgb: Image) -> dict[str, Any]:
        """See the class."""
        from stages.imaging.perceptual_hash import perceptual_signature, pixel_sha256

        return {"pixel_sha256": pixel_sha256(rgb), **perceptual_signature(rgb)}
