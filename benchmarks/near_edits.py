"""For `benchmarks/near_duplicates.py`: the edits of a photograph, and how many of them a rule finds."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from stages.imaging.decode import UndecodableImage, decode_rgb
from stages.imaging.perceptual_hash import (
    hash_words,
    perceptual_signature,
    pixel_sha256,
    thumbnail_array,
)
from stages.index.likeness import differences

Edit = Callable[[Image.Image], Image.Image]

#: Rule -> (hash, most grey levels, most relative difference); infinite bounds leave it to the hash.
RULES: dict[str, tuple[str, float, float]] = {
    "phash alone": ("phash", np.inf, np.inf),
    "phash, confirmed (2.0 or 0.07)": ("phash", 2.0, 0.07),
    "phash, confirmed (12 or 0.3)": ("phash", 12.0, 0.3),
    "phash_d4 alone": ("phash_d4", np.inf, np.inf),
    "phash_d4, confirmed (2.0 or 0.07)": ("phash_d4", 2.0, 0.07),
    "phash_d4, confirmed (12 or 0.3)": ("phash_d4", 12.0, 0.3),
}


def _jpeg(quality: int) -> Edit:
    def edit(image: Image.Image) -> Image.Image:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return decode_rgb(out.getvalue())

    return edit


def _resized(share: float) -> Edit:
    return lambda image: image.resize(
        (max(1, round(image.width * share)), max(1, round(image.height * share))), Image.Resampling.LANCZOS
    )


def _brightness(factor: float) -> Edit:
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


def _centre_crop(image: Image.Image) -> Image.Image:
    """Keeps 95% of each side, from the middle."""
    x, y = image.width * 0.025, image.height * 0.025
    return image.crop((round(x), round(y), round(image.width - x), round(image.height - y)))


def _corner_crop(image: Image.Image) -> Image.Image:
    """Cuts 5% off at the left and at the top."""
    return image.crop((round(image.width * 0.05), round(image.height * 0.05), image.width, image.height))


def _watermark(image: Image.Image) -> Image.Image:
    """White writing at half opacity across the middle, over some 60% of the width."""
    layer = Image.new("RGBA", image.size, (255, 255, 255, 0))
    text = "© example.com"
    font = ImageFont.load_default(size=max(8, image.width // 11))
    left, top, right, bottom = font.getbbox(text)
    place = ((image.width - right + left) / 2, (image.height - bottom + top) / 2)
    ImageDraw.Draw(layer).text(place, text, fill=(255, 255, 255, 128), font=font)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


EDITS: dict[str, Edit] = {
    **{f"JPEG {quality}": _jpeg(quality) for quality in (95, 85, 60, 30)},
    **{f"resize {percent}%": _resized(percent / 100) for percent in (90, 50, 25)},
    "crop 5% (centre)": _centre_crop,
    "crop 5% (corner)": _corner_crop,
    **{f"brightness {percent - 100:+}%": _brightness(percent / 100) for percent in (90, 110, 75, 125)},
    "watermark": _watermark,
    "mirrored": ImageOps.mirror,
    "turned by 90°": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}


def photographs(folder: Path | None) -> list[Image.Image]:
    """All readable pictures below the folder and in scikit-image's data, as upright RGB; equal ones once."""
    import skimage

    own = Path(skimage.__file__).parent / "data"
    places: list[Path] = [own] if folder is None else [folder, own]
    files = [file for place in places for file in sorted(place.rglob("*")) if file.suffix in (".jpg", ".jpeg", ".png")]
    pictures: dict[str, Image.Image] = {}
    for file in files:
        try:
            picture = decode_rgb(file.read_bytes())
        except UndecodableImage:
            continue
        pictures.setdefault(pixel_sha256(picture), picture)
    return list(pictures.values())


class Quality:
    """Recall of edited versions, and different photographs taken for one."""

    def __init__(self, pictures: list[Image.Image]) -> None:
        self.pictures = pictures
        self.originals = _signatures(pictures)

    def of(self, edit: Edit, radii: Iterable[int]) -> dict[str, Any]:
        """By rule: `recall`, `wrong` (pairs) and `precision`, one figure per radius."""
        edited = _signatures(edit(picture) for picture in self.pictures)
        count = len(self.pictures)
        figures = {}
        for rule, (hash, most, relative) in RULES.items():
            apart = np.bitwise_count(self.originals[hash] ^ edited[hash].T)  # [originals, edited]
            one, other = np.nonzero(apart <= max(radii))
            agree = np.ones(len(one), dtype=bool)
            if np.isfinite(most):
                left, right = self.originals["thumbnail"][one], edited["thumbnail"][other]
                plain, scaled = differences(left, right, positions=hash == "phash_d4")
                agree = (plain <= most) | (scaled <= relative)
            bits, same = apart[one, other][agree], (one == other)[agree]
            hits = [int((same & (bits <= radius)).sum()) for radius in radii]
            wrong = [int((~same & (bits <= radius)).sum()) for radius in radii]
            figures[rule] = {
                "recall": [round(hit / count, 4) for hit in hits],
                "wrong": wrong,
                "precision": [round(h / (h + w), 4) if h + w else None for h, w in zip(hits, wrong, strict=True)],
            }
        return figures


def _signatures(pictures: Iterable[Image.Image]) -> dict[str, Any]:
    rows = [perceptual_signature(picture) for picture in pictures]
    hashes = {name: hash_words([row[name] for row in rows], 64) for name in ("phash", "phash_d4")}
    return {**hashes, "thumbnail": thumbnail_array([row["thumbnail"] for row in rows])}
