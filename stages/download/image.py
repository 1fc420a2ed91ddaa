"""Verifies fetched images: format, completeness, orientation. Each is decoded once, to the last pixel."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from threading import Semaphore
from typing import TYPE_CHECKING

from stages.download.outcome import Failure, Reason
from stages.imaging.formats import FORMATS, JPEG_END, JPEG_SCAN, sniff

if TYPE_CHECKING:
    from stages.imaging.decode import LoadedImage

#: Maximum number of scans of a JPEG. Encoders write about ten; a file of a few kilobytes can contain thousands, each of
#: which makes the decoder process all pixels again.
MAX_SCANS = 100

_MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")  # in a scan: neither a stuffed zero, nor a restart, nor filling


@dataclass(frozen=True)
class VerifiedImage:
    """A verified image and the bytes to store for it."""

    data: bytes
    format: str
    width: int
    height: int
    orientation: int
    """EXIF orientation of the fetched bytes, 1-8; 1 if there was none. Already applied to the other fields."""

    @property
    def extension(self) -> str:
        """File extension without a dot."""
        return FORMATS[self.format].extension


class Inspector:
    """Checks fetched bytes against the configured limits. Thread-safe.

    Of an animation (GIF, WebP, APNG) or a file of several images (MPO, TIFF, ICO) only the first is checked, which is
    the one that later stages use; the others are stored with it. Any reader can decode whatever is stored: if metadata
    hinder the decoder, the image is stored without them, its pixels untouched.
    """

    def __init__(self, keep: tuple[str, ...], min_bytes: int, max_pixels: int, quality: int, decoders: int) -> None:
        """At most `decoders` images are decoded at the same time."""
        self._keep = frozenset(keep)
        self._min_bytes = min_bytes
        self._max_pixels = max_pixels
        self._quality = quality
        self._decoders = Semaphore(decoders)

    def __call__(self, data: bytes) -> VerifiedImage:
        """The verified image in `data`. Raises Failure."""
        kind = sniff(data)
        if not data or (kind is not None and len(data) < self._min_bytes):
            raise Failure(Reason.TOO_SMALL, f"{len(data)} bytes")
        if kind is None:
            raise Failure(Reason.NOT_AN_IMAGE)
        if kind not in self._keep:
            problem = f"{kind} is not in keep_formats" if kind in FORMATS else f"{kind} cannot be decoded"
            raise Failure(Reason.UNSUPPORTED_FORMAT, problem)
        if kind == "jpeg" and _scans(data) > MAX_SCANS:
            raise Failure(Reason.CORRUPT, f"more than {MAX_SCANS} scans")
        with self._decoders:
            return self._decode(data)

    def _decode(self, data: bytes) -> VerifiedImage:
        from stages.imaging.decode import TooManyPixels, UndecodableImage, draft_small, load

        try:
            loaded = load(data, self._max_pixels, draft_small)
            if not loaded.metadata_readable:
                loaded = _bare(loaded)
        except TooManyPixels as error:
            raise Failure(Reason.TOO_MANY_PIXELS, str(error)) from None
        except UndecodableImage as error:
            raise Failure(Reason.TRUNCATED if error.truncated else Reason.CORRUPT) from None
        if loaded.orientation == 1 and loaded.metadata_readable:
            return VerifiedImage(loaded.data, loaded.kind, *loaded.size, 1)
        return self._re_encode(loaded)

    def _re_encode(self, loaded: LoadedImage) -> VerifiedImage:
        """The image upright and without metadata other than its colour profile."""
        from stages.imaging.decode import load

        kind = loaded.kind
        if loaded.orientation == 1:
            loaded = load(loaded.data, self._max_pixels)  # what was decoded may be reduced
        upright = loaded.upright().copy()  # of a TIFF the file's own class would bring all its tags
        profile = loaded.image.info.get("icc_profile")
        upright.info = {key: upright.info[key] for key in ("transparency",) if key in upright.info}
        options: dict[str, object] = {"exif": b""} if kind != "tiff" else {}
        if isinstance(profile, bytes) and len(profile) < 65_000:  # a JPEG segment; real profiles are far smaller
            options["icc_profile"] = profile
        if kind in ("jpeg", "webp", "avif"):
            options["quality"] = self._quality
        stored = io.BytesIO()
        upright.save(stored, format=FORMATS[kind].pillow, **options)
        return VerifiedImage(stored.getvalue(), kind, upright.width, upright.height, loaded.orientation)


def _bare(loaded: LoadedImage) -> LoadedImage:
    """The image without its metadata, which a reader that looks at them would fail on."""
    from stages.imaging.decode import UndecodableImage, draft_small, load
    from stages.imaging.metadata import without_metadata

    try:
        return load(without_metadata(loaded.data, loaded.kind), draft=draft_small)
    except UndecodableImage:
        return loaded


def _scans(data: bytes) -> int:
    """Number of scans of a JPEG up to its end marker; what follows (a motion photo's video) may be any bytes."""
    if data.count(JPEG_SCAN) <= MAX_SCANS:
        return 1
    scans, at = 0, 2
    while (marker := _MARKER.search(data, at)) and marker[0] != JPEG_END:
        scans += marker[0] == JPEG_SCAN
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return scans
