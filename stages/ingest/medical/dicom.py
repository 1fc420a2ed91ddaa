"""Reads DICOM and image files and keeps 8-bit pixels and a few coded attributes of them, nothing else."""

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
#: left, top, right, bottom in pixels, the last two exclusive.
Region = tuple[int, int, int, int]

#: Modalities that are not images of a patient: segmentations, doses, plans, documents.
_NOT_IMAGES = frozenset({"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "RTIMAGE", "SR", "PR", "KO", "DOC", "REG", "ECG"})

#: Identifying keywords of the header besides the names of people (all elements of VR PN).
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
#: Coded attributes (VR CS) that describe the image and not the patient.
_KEPT_KEYWORDS = ("Modality", "BodyPartExamined", "ViewPosition", "ImageLaterality", "PhotometricInterpretation")
#: JPEG 2000 lossless and lossy (PS3.5 10.4), and the signature box of the JP2 format (ISO/IEC 15444-1 annex I).
_JPEG_2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
#: Exceptions of pydicom and its decoders for damaged or contradictory files, as observed by fuzzing.
_DECODING_ERRORS = (
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
    """A file, or a frame of it, that gives no image; the message is the reason of its reject."""


@dataclass(frozen=True)
class DecodedImage:
    """One image and values of its header; only `pixels` and `facts` may be kept."""

    pixels: NDArray[np.uint8]
    """[height, width] or [height, width, 3]."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Coded attributes by keyword."""
    modality: str = ""
    burned_in: str = ""
    """BurnedInAnnotation: YES, NO or empty."""
    regions: tuple[Region, ...] = ()
    """Regions of an ultrasound image (PS3.3 C.8.5.5); menus and names lie outside them."""


class DicomFile:
    """One DICOM file in memory, whose frames are decoded one at a time. Every method may raise Unusable."""

    def __init__(self, content: bytes, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        with _errors_as_unusable():
            self._dataset = _read(content)
            self._modality = str(self._dataset.get("Modality") or "")
            if self._modality in _NOT_IMAGES:
                raise Unusable("not_a_picture")
            if "PixelData" not in self._dataset:
                raise Unusable("no_pixels")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of people in the header, to be removed from the text; never stored."""
        with _errors_as_unusable():
            return tuple(sorted({str(e.value) for e in self._dataset.iterall() if e.VR == "PN" and e.value}))

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Record numbers, institutions and addresses of the header, to be removed from the text; never stored."""
        with _errors_as_unusable():
            return tuple(sorted({str(self._dataset.get(key)) for key in _IDENTIFYING if self._dataset.get(key)}))

    def key(self, keyword: Literal["StudyInstanceUID", "AccessionNumber"]) -> str | None:
        """Value of a keyword by which reports are linked; None without one."""
        with _errors_as_unusable():
            value = self._dataset.get(keyword)
            return str(value).strip() if value else None

    def frame_numbers(self, frames: Frames) -> list[int]:
        """Numbers of the frames that become images. Raises Unusable for `reject` and several frames."""
        with _errors_as_unusable():
            count = max(1, int(self._dataset.get("NumberOfFrames") or 1))
        if count > 1 and frames == "reject":
            raise Unusable("multi_frame")
        return {"middle": [count // 2], "all": list(range(count))}.get(frames, [0])

    def image(self, frame: int = 0) -> DecodedImage:
        """One decoded frame."""
        from pydicom.pixels import get_decoder

        from stages.ingest.medical.grayscale import to_8_bit

        with _errors_as_unusable():
            dataset = self._dataset
            if int(dataset.Rows) * int(dataset.Columns) > self._max_pixels:
                raise Unusable("too_many_pixels")
            try:
                available = get_decoder(dataset.file_meta.TransferSyntaxUID).is_available
            except NotImplementedError:  # not an image format, such as MPEG video
                available = False
            if not available:
                raise Unusable("unsupported_compression")
            if dataset.file_meta.TransferSyntaxUID in _JPEG_2000:
                self._check_boxes(frame)
            return DecodedImage(
                to_8_bit(dataset, frame),
                self._facts(frame),
                self._modality,
                str(dataset.get("BurnedInAnnotation") or "").upper(),
                self._regions(),
            )

    def _check_boxes(self, frame: int) -> None:
        """A JPEG 2000 frame may be wrapped in boxes; pydicom 3.0 loops for ever over one of length 0."""
        from pydicom.encaps import get_frame

        count = int(self._dataset.get("NumberOfFrames") or 1)
        content = get_frame(self._dataset.PixelData, frame, number_of_frames=count)
        if not content.startswith(_JP2_SIGNATURE):
            return
        position = len(_JP2_SIGNATURE) + 4
        while position < len(content) and content[position + 4 : position + 8] != b"jp2c":
            length = int.from_bytes(content[position : position + 4], "big")
            if length < 8:
                raise Unusable("undecodable")
            position += length

    def _facts(self, frame: int) -> dict[str, Any]:
        dataset = self._dataset
        facts: dict[str, Any] = {"Rows": int(dataset.Rows), "Columns": int(dataset.Columns)}
        facts["NumberOfFrames"] = int(dataset.get("NumberOfFrames") or 1)
        if facts["NumberOfFrames"] > 1:
            facts["Frame"] = frame
        for keyword in _KEPT_KEYWORDS:
            value = str(dataset.get(keyword) or "")
            # Code strings are upper case, at most 16 characters (PS3.5 6.2); anything else is free text.
            coded = all(c.isascii() and (c.isupper() or c.isdigit() or c in " _") for c in value)
            if value and len(value) <= 16 and coded:
                facts[keyword] = value
        return facts

    def _regions(self) -> tuple[Region, ...]:
        keywords = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
        regions = []
        for item in self._dataset.get("SequenceOfUltrasoundRegions") or []:
            if all(item.get(keyword) is not None for keyword in keywords):
                left, top, right, bottom = (int(item.get(keyword)) for keyword in keywords)
                if 0 <= left < right and 0 <= top < bottom:
                    regions.append((left, top, right + 1, bottom + 1))
        return tuple(regions)


def read_image(content: bytes, max_pixels: int) -> DecodedImage:
    """The pixels of a PNG, JPEG or TIFF file on white, without its metadata. Raises Unusable."""
    import numpy as np

    from stages.imaging.decode import TooManyPixels, UndecodableImage, load, on_white, to_rgb
    from stages.ingest.medical.grayscale import scaled

    with _errors_as_unusable():
        try:
            image = load(content, max_pixels).upright()
        except TooManyPixels:
            raise Unusable("too_many_pixels") from None
        except UndecodableImage:
            raise Unusable("undecodable") from None
        seen = on_white(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            values = np.asarray(image)
            transparent = np.asarray(seen) != values
            pixels = scaled(values.astype(np.float64), transparent)
            pixels[transparent] = 255
        else:
            pixels = np.asarray(seen.convert("L") if seen.mode in ("1", "L") else to_rgb(seen))
        return DecodedImage(pixels, {"Rows": pixels.shape[0], "Columns": pixels.shape[1]})


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """PNG of uint8 [height, width] or [height, width, 3] with fixed settings and without metadata."""
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
def _errors_as_unusable() -> Iterator[None]:
    """Turns decoding errors into Unusable, and silences logs and warnings, which quote values of the file."""
    from pydicom.errors import BytesLengthException

    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (*_DECODING_ERRORS, BytesLengthException) as error:
        raise Unusable("undecodable") from error
    finally:
        log.setLevel(level)
