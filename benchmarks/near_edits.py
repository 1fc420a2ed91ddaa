"""For `benchmarks/near_duplicates.py`: the edits of a photograph, and how many of them a rule finds."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from stages.imaging.decode import UndecodableImage, decode_rgb
from stages.imaging.perceptual_hash import (
    hash_words,
    patch_array,
    perceptual_signature,
    pixel_sha256,
    thumbnail_array,
)
from stages.index.alignment import compare
from stages.index.likeness import differences
from stages.index.windows import WindowBase, candidates, textured, window_hashes
from stages.select.config import Crops

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
#: The rule of the selection's defaults, and its radius.
DEFAULT_RULE, DEFAULT_RADIUS = "phash, confirmed (2.0 or 0.07)", 8
#: The selection's bounds on crops.
CROPS = Crops()
_APART = 1000  # bits of pairs that do not match


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


def _kept(left: float, right: float, top: float, bottom: float) -> Edit:
    """Cuts off what is outside these shares of the width and the height."""

    def edit(image: Image.Image) -> Image.Image:
        width, height = image.size
        return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))

    return edit


def _anywhere(least: float, most: float) -> Edit:
    """Cuts off between these shares of both sides, anywhere; where and how much depends on the picture alone."""

    def edit(image: Image.Image) -> Image.Image:
        random = np.random.default_rng(int(pixel_sha256(image)[:8], 16))
        kept = 1 - random.uniform(least, most)
        left, top = random.uniform(0, 1 - kept, 2)
        return _kept(left, left + kept, top, top + kept)(image)

    return edit


def _framed(across: float, down: float, colour: str) -> Edit:
    """Adds a border, in shares of the width at the left and right and of the height above and below."""
    return lambda image: ImageOps.expand(image, (round(image.width * across), round(image.height * down)), fill=colour)


def _logo(image: Image.Image) -> Image.Image:
    """A disc over the lower right corner, of 23% of the width and the height."""
    image, (width, height) = image.copy(), image.size
    draw = ImageDraw.Draw(image)
    draw.ellipse((0.72 * width, 0.72 * height, 0.95 * width, 0.95 * height), fill=(220, 30, 30))
    draw.ellipse((0.77 * width, 0.77 * height, 0.90 * width, 0.90 * height), fill="white")
    return image


def _strip(image: Image.Image) -> Image.Image:
    """White writing on a black strip over the lowest 12%."""
    image, (width, height) = image.copy(), image.size
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0.88 * height, width, height), fill="black")
    font = ImageFont.load_default(size=max(8, height // 14))
    draw.text((0.05 * width, 0.9 * height), "Breaking news: a caption", fill="white", font=font)
    return image


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
    "crop 5% (centre)": _kept(0.025, 0.975, 0.025, 0.975),
    "crop 5% (corner)": _kept(0.05, 1, 0.05, 1),
    "crop 10% (centre)": _kept(0.05, 0.95, 0.05, 0.95),
    "crop 10% (corner)": _kept(0, 0.9, 0.1, 1),
    "crop 3-10% (anywhere)": _anywhere(0.03, 0.10),
    "crop 10-15% (anywhere)": _anywhere(0.10, 0.15),
    "crop 8% (one side)": _kept(0, 1, 0, 0.92),
    "border 5%, white": _framed(0.05, 0.05, "white"),
    "border 3%, black": _framed(0.03, 0.03, "black"),
    "bars of 6%, black": _framed(0, 0.06, "black"),
    **{f"brightness {percent - 100:+}%": _brightness(percent / 100) for percent in (90, 110, 75, 125)},
    "watermark": _watermark,
    "logo": _logo,
    "strip of text": _strip,
    "mirrored": ImageOps.mirror,
    "mirrored, crop 5%": lambda image: _kept(0.03, 0.98, 0.02, 0.97)(ImageOps.mirror(image)),
    "turned by 90°": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "crop 5%, JPEG 60": lambda image: _jpeg(60)(_kept(0.01, 0.96, 0.04, 0.99)(image)),
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

    def of(self, edit: Edit, radii: Sequence[int]) -> dict[str, Any]:
        """By rule: `recall`, `wrong` (pairs) and `precision`, one figure per radius.

        Besides :data:`RULES`, `crops` (the radius is that of the windows' hashes), and `either`: the rule of the
        defaults at `DEFAULT_RADIUS`, or `crops` at the radius.
        """
        edited = _signatures(edit(picture) for picture in self.pictures)
        crops = self._crops(edited, max(radii))
        figures = {}
        for rule, (hash, most, relative) in RULES.items():
            apart = np.bitwise_count(self.originals[hash] ^ edited[hash].T)  # [originals, edited]
            one, other = np.nonzero(apart <= max(radii))
            agree = np.ones(len(one), dtype=bool)
            if np.isfinite(most):
                left, right = self.originals["thumbnail"][one], edited["thumbnail"][other]
                plain, scaled = differences(left, right, positions=hash == "phash_d4")
                agree = (plain <= most) | (scaled <= relative)
            bits = self._bits(one[agree], other[agree], apart[one, other][agree])
            figures[rule] = _figures(bits, radii)
            if rule == DEFAULT_RULE:
                plainly = np.where(bits <= DEFAULT_RADIUS, 0, _APART)
                figures["either"] = _figures(np.minimum(plainly, crops), radii)
        return figures | {"crops": _figures(crops, radii)}

    def _crops(self, edited: dict[str, Any], radius: int) -> NDArray[np.int64]:
        """Bits by which the nearest window of each confirmed pair is apart."""
        mine, base = edited["patch"], self.originals["patch"]
        some, others = np.flatnonzero(textured(mine)), np.flatnonzero(textured(base))
        mine, base = mine[some], base[others]
        found = candidates(window_hashes(mine), WindowBase.of(window_hashes(base)), radius)
        correlation, uncovered = compare(mine, base, found)
        agree = (correlation >= CROPS.min_correlation) | (uncovered >= CROPS.min_uncovered)
        return self._bits(others[found.base][agree], some[found.query][agree], found.distance[agree])

    def _bits(self, one: NDArray[Any], other: NDArray[Any], bits: NDArray[Any]) -> NDArray[np.int64]:
        """The same as a matrix [originals, edited], :data:`_APART` where there is no pair."""
        matrix = np.full((len(self.pictures), len(self.pictures)), _APART)
        matrix[one, other] = bits
        return matrix


def _figures(bits: NDArray[np.int64], radii: Sequence[int]) -> dict[str, Any]:
    hits = [int((np.diagonal(bits) <= radius).sum()) for radius in radii]
    wrong = [int((bits <= radius).sum()) - hit for radius, hit in zip(radii, hits, strict=True)]
    return {
        "recall": [round(hit / len(bits), 4) for hit in hits],
        "wrong": wrong,
        "precision": [round(h / (h + w), 4) if h + w else None for h, w in zip(hits, wrong, strict=True)],
    }


def _signatures(pictures: Iterable[Image.Image]) -> dict[str, Any]:
    rows = [perceptual_signature(picture) for picture in pictures]
    hashes = {name: hash_words([row[name] for row in rows], 64) for name in ("phash", "phash_d4")}
    patch = patch_array([row["patch"] for row in rows])
    return {**hashes, "thumbnail": thumbnail_array([row["thumbnail"] for row in rows]), "patch": patch}
