"""From a DICOM or PNG file to what may be kept of it: 8-bit pixels, a few coded facts, and nothing else.

Grey values follow DICOM PS3.3 C.11: modality LUT or rescale, then VOI LUT or window, then MONOCHROME1 inverted.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset

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


class Unusable(Exception):
    """This file gives no picture; the message is a reject's reason."""


@dataclass(frozen=True)
class Picture:
    """One de-identified image and what its header said."""

    png: bytes
    """Lossless 8-bit PNG, grey or RGB, without any metadata."""
    facts: dict[str, Any]
    """Coded facts that may be kept."""
    names: tuple[str, ...] = ()
    """People the header names, to be looked for in the text; never stored."""
    numbers: tuple[str, ...] = ()
    """Its record numbers, institutions and addresses, likewise."""
    study: str | None = None
    accession: str | None = None


def read_dicom(content: bytes, burned_in: frozenset[str]) -> Picture:
    """Decode one DICOM file; of several frames the first.

    `burned_in` are modalities that often have the patient's name in the picture: refused unless the header says
    that it is not so. Raises Unusable.
    """
    with _unheard():
        return _read_dicom(content, burned_in)


@contextmanager
def _unheard() -> Iterator[None]:
    # pydicom warns of odd values by quoting them, to warnings and to its log: those quotations would leave the source.
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _read_dicom(content: bytes, burned_in: frozenset[str]) -> Picture:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        dataset = pydicom.dcmread(io.BytesIO(content))
    except InvalidDicomError as error:
        raise Unusable("not_dicom") from error
    except (OSError, EOFError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise Unusable("undecodable") from error
    modality = str(dataset.get("Modality") or "")
    if modality in NOT_PICTURES:
        raise Unusable("not_a_picture")
    if "PixelData" not in dataset:
        raise Unusable("no_pixels")
    stated = str(dataset.get("BurnedInAnnotation") or "").upper()
    if stated == "YES" or (modality in burned_in and stated != "NO"):
        raise Unusable("burned_in_annotation")
    try:
        pixels = to_8_bit(dataset)
        facts = _facts(dataset)
        names = tuple(sorted({str(e.value) for e in dataset.iterall() if e.VR == "PN" and e.value}))
        numbers = tuple(sorted({str(dataset.get(key)) for key in _IDENTIFYING if dataset.get(key)}))
    except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, RuntimeError, IndexError) as error:
        # pydicom and its decoders raise all of these for damaged or unsupported pixel data.
        raise Unusable("undecodable") from error
    study, accession = dataset.get("StudyInstanceUID"), dataset.get("AccessionNumber")
    return Picture(
        encode_png(pixels),
        facts,
        names,
        numbers,
        str(study) if study else None,
        str(accession) if accession else None,
    )


def read_image(content: bytes) -> Picture:
    """Decode a PNG, JPEG or TIFF and keep its pixels only. Raises Unusable."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                pixels = _scaled(np.asarray(image).astype(np.float64), None)
            else:
                pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unusable("undecodable") from error
    return Picture(encode_png(pixels), {"Rows": pixels.shape[0], "Columns": pixels.shape[1]})


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Lossless PNG of [height, width] or [height, width, 3] with fixed settings and no metadata."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def to_8_bit(dataset: Dataset) -> NDArray[np.uint8]:
    """The first frame as it is meant to be seen: uint8 [height, width], or [height, width, 3] in colour."""
    import numpy as np
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array

    stored = pixel_array(dataset, index=0)
    interpretation = str(dataset.PhotometricInterpretation)
    if interpretation == "PALETTE COLOR":
        coloured = apply_color_lut(stored, dataset)
        return (coloured >> 8).astype(np.uint8) if coloured.dtype == np.uint16 else coloured.astype(np.uint8)
    if stored.ndim == 3:
        bits = int(dataset.BitsStored)
        return (stored >> (bits - 8) if bits > 8 else stored).astype(np.uint8)
    if not interpretation.startswith("MONOCHROME"):
        raise ValueError(f"one sample per pixel in {interpretation}")

    padding = _padding(stored, dataset)
    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    if dataset.get("VOILUTSequence"):
        table = dataset.VOILUTSequence[0].LUTDescriptor
        shown = apply_voi(apply_modality_lut(stored, dataset), dataset).astype(np.float64)
        grey = np.rint(shown / (2 ** int(table[2]) - 1) * 255)
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        function = str(dataset.get("VOILUTFunction") or "LINEAR")
        grey = np.rint(window(values, _first(dataset.WindowCenter), _first(dataset.WindowWidth), function) * 255)
    else:
        grey = _scaled(values, padding)
    grey = np.clip(grey, 0, 255).astype(np.uint8)
    if interpretation == "MONOCHROME1":
        grey = 255 - grey
    if padding is not None:
        grey = np.where(padding, 0, grey).astype(np.uint8)
    return grey


def window(values: NDArray[np.float64], center: float, width: float, function: str) -> NDArray[np.float64]:
    """Values in [0, 1] by a window (PS3.3 C.11.2.1.2 for LINEAR, C.11.2.1.3 for LINEAR_EXACT and SIGMOID).

    Raises ValueError for a width the standard does not allow.
    """
    import numpy as np

    if function == "SIGMOID":
        if width <= 0:
            raise ValueError("window width must be positive")
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":
        if width < 1:
            raise ValueError("window width must be at least 1")
        center, width = center - 0.5, width - 1
    elif width <= 0:
        raise ValueError("window width must be positive")
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _scaled(values: NDArray[np.float64], padding: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Smallest to largest value onto 0..255, where the file names no window."""
    import numpy as np

    seen = values if padding is None or padding.all() else values[~padding]
    low, high = float(seen.min()), float(seen.max())
    return np.rint(np.clip((values - low) / ((high - low) or 1), 0, 1) * 255).astype(np.uint8)


def _padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_] | None:
    """Where the pixels are filling outside the picture (PS3.3 C.7.5.1.1.2), to be shown black."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit", value)
    mask: NDArray[np.bool_] = (stored >= min(int(value), int(limit))) & (stored <= max(int(value), int(limit)))
    return mask


def _first(value: Any) -> float:
    # Several windows are alternatives for the viewer; the first is the default.
    return float(value if isinstance(value, int | float | str) else next(iter(value)))


def _facts(dataset: Dataset) -> dict[str, Any]:
    facts: dict[str, Any] = {"Rows": int(dataset.Rows), "Columns": int(dataset.Columns)}
    facts["NumberOfFrames"] = int(dataset.get("NumberOfFrames") or 1)
    for keyword in _KEPT:
        value = str(dataset.get(keyword) or "")
        # Code strings are upper case, at most 16 characters (PS3.5 6.2); anything else was typed by someone.
        if value and len(value) <= 16 and all(c.isascii() and (c.isupper() or c.isdigit() or c in " _") for c in value):
            facts[keyword] = value
    return facts
