"""The image of a sample: its exact bytes out of a raw shard, scaled down where the configuration bounds its size."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.base.artifact import Artifact
from stages.shard.handles import Handles

_LOSSLESS = ("png", "gif", "bmp", "tif", "tiff")
_PNG_LEVEL = 6


@dataclass(frozen=True)
class StoredImage:
    """What a shard stores of an image."""

    data: bytes
    ext: str
    width: int
    height: int
    sha256: str
    as_fetched: bool = True
    """Whether these are the bytes that were fetched: not where the download had to store the picture anew."""


class RawImages:
    """Reads images by offset and length; a raw tar is never scanned."""

    def __init__(self, raw: Sequence[Artifact]) -> None:
        self._raw = raw
        self._handles = Handles()

    def __call__(self, row: Mapping[str, Any]) -> StoredImage:
        """The image of a row of `plan.samples`. Raises RuntimeError when the bytes are not those that were fetched."""
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


class Bound:
    """Scales images down with img2dataset's resizer (area interpolation), those within the bound left untouched.

    To JPEG; but to PNG what the download compressed anew already, so that no image loses twice.

    Not for use in several threads at once: the resizer redirects the process's standard streams while it works.
    """

    def __init__(self, longest_side: int, quality: int) -> None:
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or importing it asks the web for its newest version
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        from img2dataset.resizer import Resizer

        self._longest_side = longest_side
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
        """The image within the bound. Raises RuntimeError when it cannot be decoded."""
        if max(image.width, image.height) <= self._longest_side:
            return image
        ext = "jpg" if image.as_fetched or image.ext in _LOSSLESS else "png"
        data, width, height, _, _, error = self._resize[ext](io.BytesIO(image.data))
        if error is not None:
            raise RuntimeError(f"image with sha256 {image.sha256} cannot be scaled down: {error}")
        return StoredImage(data, ext, width, height, hashlib.sha256(data).hexdigest())
