"""From a DICOM or PNG file to what may be kept of it: 8-bit pixels, a few coded facts, and nothing else."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset

Frames = Literal["first", "middle", "all", "reject"]
#: left, top, right, bottom in pixels, the last two outside.
Region = tuple[int, int, int, int]

#: Modalities whose pixels are no picture of a patient: segmentations, doses, plans, documents.
NOT_PICTURES = frozenset({"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "RTIMAGE", "SR", "PR", "KO", "DOC", "REG", "ECG"})

#: Keywords of the header that tell who or where, besides the names of people (all elements of VR PN).
_IDENTIFYING = (
    "PatientID",
    "OtherPatientIDs",
    "IssuerOfPatientID",
    "AccessionNumber",
    "StudyID",
    "AdmissionID",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
    "MilitaryRank",
    "MedicalRecordLocator",
)
#: Coded facts (VR CS and US) that describe the picture and not the patient.
_KEPT = ("Modality", "BodyPartExamined", "ViewPosition", "ImageLaterality", "PhotometricInterpretation")
#: JPEG 2000 lossless and lossy (PS3.5 10.4), and how a file of boxes begins (ISO/IEC 15444-1 annex I).
_JPEG_2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
_BOXED = b"\x00\x00\x00\x0cjP  "
#: What pydicom and its decoders raise for damaged or contradictory files: found by feeding them changed ones.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    SyntaxError,
    struct.error,
    zlib.error,
)


class Unusable(Exception):
    """This file, or this frame of it, gives no picture; the message is a reject's reason."""


@dataclass(frozen=True)
class Picture:
    """One image and what its header said; only `pixels` and `facts` may be kept."""

    pixels: NDArray[np.uint8]
    """[height, width] or [height, width, 3]."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Coded facts."""
    modality: str = ""
    burned_in: str = ""
    """BurnedInAnnotation: YES, NO or nothing."""
    regions: tuple[Region, ...] = ()
    """Where an ultrasound machine says that its picture is (PS3.3 C.8.5.5); menus and names are outside."""


class DicomFile:
    """One DICOM file, read whole; its frames are decoded one at a time. Every method raises Unusable."""

    def __init__(self, content: bytes, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        with _damage_is_unusable():
            self._dataset = _read(content)
            self._modality = str(self._dataset.get("Modality") or "")
            if self._modality in NOT_PICTURES:
                raise Unusable("not_a_picture")
            if "PixelData" not in self._dataset:
                raise Unusable("no_pixels")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """People the header names, to be looked for in the text; never stored."""
        with _damage_is_unusable():
            return tuple(sorted({str(e.value) for e in self._dataset.iterall() if e.VR == "PN" and e.value}))

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Its record numbers, institutions and addresses, likewise."""
        with _damage_is_unusable():
            return tuple(sorted({str(self._dataset.get(key)) for key in _IDENTIFYING if self._dataset.get(key)}))

    def key(self, keyword: Literal["StudyInstanceUID", "AccessionNumber"]) -> str | None:
        """What a report may be listed under."""
        with _damage_is_unusable():
            value = self._dataset.get(keyword)
            return str(value).strip() if value else None

    def chosen(self, frames: Frames) -> list[int]:
        """Which frames become images: of several the first, the one in the middle, all, or none (Unusable)."""
        with _damage_is_unusable():
            count = max(1, int(self._dataset.get("NumberOfFrames") or 1))
        if count > 1 and frames == "reject":
            raise Unusable("multi_frame")
        return {"middle": [count // 2], "all": list(range(count))}.get(frames, [0])

    def picture(self, frame: int = 0) -> Picture:
        """Decode one frame."""
        from pydicom.pixels import get_decoder

        from stages.ingest.medical.grey import to_8_bit

        with _damage_is_unusable():
            dataset = self._dataset
            if int(dataset.Rows) * int(dataset.Columns) > self._max_pixels:
                raise Unusable("too_many_pixels")
            try:
                available = get_decoder(dataset.file_meta.TransferSyntaxUID).is_available
            except NotImplementedError:  # no picture format at all, such as MPEG video
                available = False
            if not available:
                raise Unusable("unsupported_compression")
            if dataset.file_meta.TransferSyntaxUID in _JPEG_2000:
                self._refuse_endless_boxes(frame)
            return Picture(
                to_8_bit(dataset, frame),
                self._facts(frame),
                self._modality,
                str(dataset.get("BurnedInAnnotation") or "").upper(),
                self._regions(),
            )

    def _refuse_endless_boxes(self, frame: int) -> None:
        """A JPEG 2000 frame may be wrapped in boxes; pydicom 3.0 walks over them for ever where one says length 0."""
        from pydicom.encaps import get_frame

        count = int(self._dataset.get("NumberOfFrames") or 1)
        content = get_frame(self._dataset.PixelData, frame, number_of_frames=count)
        if not content.startswith(_BOXED):
            return
        place = len(_BOXED) + 4
        while place < len(content) and content[place + 4 : place + 8] != b"jp2c":
            length = int.from_bytes(content[place : place + 4], "big")
            if length < 8:
                raise Unusable("undecodable")
            place += length

    def _facts(self, frame: int) -> dict[str, Any]:
        dataset = self._dataset
        facts: dict[str, Any] = {"Rows": int(dataset.Rows), "Columns": int(dataset.Columns)}
        facts["NumberOfFrames"] = int(dataset.get("NumberOfFrames") or 1)
        if facts["NumberOfFrames"] > 1:
            facts["Frame"] = frame
        for keyword in _KEPT:
            value = str(dataset.get(keyword) or "")
            # Code strings are upper case, at most 16 characters (PS3.5 6.2); anything else was typed by someone.
            coded = all(c.isascii() and (c.isupper() or c.isdigit() or c in " _") for c in value)
            if value and len(value) <= 16 and coded:
                facts[keyword] = value
        return facts

    def _regions(self) -> tuple[Region, ...]:
        keywords = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
        found = []
        for item in self._dataset.get("SequenceOfUltrasoundRegions") or []:
            if all(item.get(keyword) is not None for keyword in keywords):
                left, top, right, bottom = (int(item.get(keyword)) for keyword in keywords)
                if 0 <= left < right and 0 <= top < bottom:
                    found.append((left, top, right + 1, bottom + 1))
        return tuple(found)


def read_image(content: bytes, max_pixels: int) -> Picture:
    """Decode a PNG, JPEG or TIFF and keep its pixels only. Raises Unusable."""
    import numpy as np
    from PIL import Image, ImageOps

    from stages.ingest.medical.grey import scaled

    with _damage_is_unusable():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as opened:
                if opened.width * opened.height > max_pixels:
                    raise Unusable("too_many_pixels")
                image = ImageOps.exif_transpose(opened)
                if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                    pixels = scaled(np.asarray(image).astype(np.float64), None)
                else:
                    pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
        return Picture(pixels, {"Rows": pixels.shape[0], "Columns": pixels.shape[1]})


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Lossless PNG of [height, width] or [height, width, 3] with fixed settings and no metadata."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _read(content: bytes) -> Dataset:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        return pydicom.dcmread(io.BytesIO(content))
    except InvalidDicomError as error:
        raise Unusable("not_dicom") from error


@contextmanager
def _damage_is_unusable() -> Iterator[None]:
    """Whatever a damaged file makes the decoders raise, log or warn of stays unheard: they quote its values."""
    from pydicom.errors import BytesLengthException

    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (*_DAMAGE, BytesLengthException) as error:
        raise Unusable("undecodable") from error
    finally:
        log.setLevel(level)
