"""Size and tone of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from stages.signals.family import ImageFamily

_LUMINANCE = np.arange(256)


class Tone(ImageFamily):
    """`aspect_ratio` (long side / short side), and of the luminance, 0..255: mean, standard deviation and the entropy
    of its histogram in bits (0 for a single grey, at most 8); `mean_rgb` per channel."""

    columns = (
        ("aspect_ratio", pa.float64()),
        ("brightness", pa.float32()),
        ("contrast", pa.float32()),
        ("entropy", pa.float32()),
        ("mean_rgb", pa.list_(pa.float32())),
    )

    def measure(self, rgb: Image.Image) -> dict[str, Any]:
        """See the class; rounded to 4 digits, so that the last bit of a sum cannot differ between machines."""
        pixels = rgb.width * rgb.height
        share = np.asarray(rgb.convert("L").histogram(), dtype=np.float64) / pixels
        mean = float(share @ _LUMINANCE)
        deviation = float(np.sqrt(share @ (_LUMINANCE - mean) ** 2))
        seen = share[share > 0]
        channels = np.asarray(rgb.histogram(), dtype=np.float64).reshape(3, 256) @ _LUMINANCE / pixels
        return {
            "aspect_ratio": max(rgb.size) / min(rgb.size),
            "brightness": round(mean, 4),
            "contrast": round(deviation, 4),
            "entropy": round(abs(float(seen @ np.log2(seen))), 4),
            "mean_rgb": [round(float(c), 4) for c in channels],
        }
