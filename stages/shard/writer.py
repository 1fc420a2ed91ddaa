"""Writes a shard: image bytes read from raw shards and scaled down where bounded, and a tar with fixed headers."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from stages.base.artifact import Artifact
from stages.imaging.decode import UndecodableImage, decode_rgb
from stages.imaging.formats import sniff
from stages.shard.files import Handles

_BLOCK = 512
_LOSSLESS = ("png", "gif", "bmp", "tif", "tiff")
_PNG_LEVEL = 6


@dataclass(frozen=True)
class StoredImage:
    """An image as a shard stores it."""

    data: bytes
    ext: str
    width: int
    height: int
    sha256: str
    as_fetched: bool = True
    """Whether these are the fetched bytes; false where the download had to re-encode the image."""


class RawImages:
    """Reads images by offset and length; a raw tar is never scanned."""

    def __init__(self, raw: Sequence[Artifact]) -> None:
        self._raw = raw
        self._handles = Handles()

    def __call__(self, row: Mapping[str, Any]) -> StoredImage:
        """The image of a row of `OrderedSamples.rows`. Raises RuntimeError if the bytes are not those fetched."""
        name = f"raw-{row['shard']}.tar"
        path = self._raw[row["raw"]].path(name)
        data = self._handles.read(path, row["offset"], row["length"])
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise RuntimeError(
                f"{path}: image {row['image_uid']} at offset {row['offset']} is not what the download recorded (sha256 "
                f"differs): the file is damaged; remove the download artifact of {row['source']} to fetch it again"
            )
        as_fetched = row["source_sha256"] in (None, row["sha256"])
        return StoredImage(data, row["ext"], row["width"], row["height"], row["sha256"], as_fetched)


class ImageResizer:
    """Scales images down with img2dataset's resizer (area interpolation); those within the bound are left untouched.

    The result is a JPEG, but a PNG if the download already re-encoded the image, so that no image is compressed with
    loss twice; with `one_format` an RGB JPEG in any case.

    Not for use in several threads at once: the resizer redirects the process's standard streams while it works.
    """

    def __init__(self, longest_side: int, quality: int, one_format: bool = False) -> None:
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise importing it looks up its newest version online
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        from img2dataset.resizer import Resizer

        self._longest_side = longest_side
        self._one_format = one_format
        self._resize = {
            ext: Resizer(
                longest_side,
                "keep_ratio_largest",
                resize_only_if_bigger=True,
                encode_quality=level,
                encode_format=ext,
            )
            for ext, level in (("jpg", quality), ("png", _PNG_LEVEL))
        }

    def __call__(self, image: StoredImage) -> StoredImage:
        """The image, scaled down to the bound. Raises RuntimeError if it cannot be decoded."""
        if max(image.width, image.height) <= self._longest_side:
            return image
        ext = "jpg" if self._one_format or image.as_fetched or image.ext in _LOSSLESS else "png"
        try:
            data = _for_resizer(image, ("RGB",) if self._one_format else ("1", "L", "P", "RGB"))
        except UndecodableImage as broken:
            raise RuntimeError(f"image with sha256 {image.sha256} cannot be scaled down: {broken}") from None
        data, width, height, _, _, error = self._resize[ext](io.BytesIO(data))
        if error is not None:
            raise RuntimeError(f"image with sha256 {image.sha256} cannot be scaled down: {error}")
        return StoredImage(data, ext, width, height, hashlib.sha256(data).hexdigest())


def as_rgb_jpeg(image: StoredImage, quality: int) -> StoredImage:
    """The image as an RGB JPEG; one that is a JPEG of three colours already keeps its bytes."""
    if _mode(image.data, ("jpeg",)) == "RGB":
        return image
    try:
        rgb = decode_rgb(image.data)
    except UndecodableImage as error:
        raise RuntimeError(f"image with sha256 {image.sha256} cannot be stored as JPEG: {error}") from None
    encoded = io.BytesIO()
    rgb.save(encoded, "JPEG", quality=quality)
    data = encoded.getvalue()
    return StoredImage(data, "jpg", rgb.width, rgb.height, hashlib.sha256(data).hexdigest())


def _mode(data: bytes, formats: Sequence[str]) -> str | None:
    """Pillow's mode of an opaque image in one of the formats, from its header; None for others."""
    if sniff(data) not in formats:
        return None
    with Image.open(io.BytesIO(data)) as opened:
        return None if opened.has_transparency_data else opened.mode


def _for_resizer(image: StoredImage, modes: Sequence[str]) -> bytes:
    """Bytes that OpenCV, which the resizer decodes with, sees as everything else here does.

    It differs on transparency, 16 bits and CMYK, and does not read every format: what is not an opaque JPEG, PNG or
    WebP of one of the modes is handed over decoded.
    """
    if _mode(image.data, ("jpeg", "png", "webp")) in modes:
        return image.data
    decoded = io.BytesIO()
    decode_rgb(image.data).save(decoded, "BMP")
    return decoded.getvalue()


class Extent(NamedTuple):
    """Offset and length of a member's data in the tar, in bytes."""

    offset: int
    length: int


#: That of a part which a sample does not have.
NO_PART = Extent(0, -1)


class ShardWriter:
    """Writes one shard; a context manager."""

    def __init__(self, path: Path) -> None:
        """Equal samples give equal bytes: the tar contains no time, user or host."""
        from webdataset.writer import TarWriter

        self._file = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._tar = TarWriter(self._file, user="", group="", mode=0o644, mtime=0, compress=False, encoder=False)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, key: str, parts: Mapping[str, bytes]) -> dict[str, Extent]:
        """Append one sample, `<key>.<extension>` per part; returns the extent of each part's data.

        `key` with extension has at most 100 ASCII characters, so that each header is a single block.
        """
        end = self._tar.tarstream.offset
        extents = {}
        for extension in sorted(parts):  # the library's order
            length = len(parts[extension])
            extents[extension] = Extent(end + _BLOCK, length)
            end += _BLOCK + -(-length // _BLOCK) * _BLOCK
        self._tar.write({"__key__": key, **parts})
        if self._tar.tarstream.offset != end:
            raise RuntimeError(f"{self._file.name}: sample {key} ends at {self._tar.tarstream.offset}, not at {end}")
        return extents

    def close(self) -> None:
        """Finish the tar."""
        self._tar.close()
        self._file.close()
