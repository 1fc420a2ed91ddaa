"""Converts stored DICOM values to the 8 bits that a viewer would display.

Grey values follow DICOM PS3.3 C.11: modality LUT or rescale, then VOI LUT or window, then MONOCHROME1 inverted.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset

#: Functional groups of multi-frame files (PS3.3 C.7.6.16) that determine how a frame is displayed, and their keywords.
_FUNCTIONAL_GROUPS = {
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}


def to_8_bit(dataset: Dataset, frame: int = 0) -> NDArray[np.uint8]:
    """One frame as it is meant to be displayed: uint8 [height, width], or [height, width, 3] in colour.

    Raises what pydicom and its decoders raise for damaged or contradictory data, mostly ValueError.
    """
    import numpy as np
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array

    stored = pixel_array(dataset, index=frame)
    interpretation = str(dataset.PhotometricInterpretation)
    if interpretation == "PALETTE COLOR":
        coloured = apply_color_lut(stored, dataset)
        return (coloured >> 8).astype(np.uint8) if coloured.dtype == np.uint16 else coloured.astype(np.uint8)
    if stored.ndim == 3:
        bits = int(dataset.BitsStored)
        return (stored >> (bits - 8) if bits > 8 else stored).astype(np.uint8)
    if not interpretation.startswith("MONOCHROME"):
        raise ValueError(f"one sample per pixel in {interpretation}")

    header = _frame_header(dataset, frame)
    padding = _padding(stored, header)
    values = np.asarray(apply_modality_lut(stored, header), dtype=np.float64)
    center, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0].LUTDescriptor
        displayed = apply_voi(apply_modality_lut(stored, header), header).astype(np.float64)
        grey = np.rint(displayed / (2 ** int(table[2]) - 1) * 255)
    elif center is not None and width is not None:
        grey = np.rint(window(values, center, width, str(header.get("VOILUTFunction") or "LINEAR")) * 255)
    else:
        grey = scaled(values, padding)
    grey = np.clip(grey, 0, 255).astype(np.uint8)
    if interpretation == "MONOCHROME1":
        grey = 255 - grey
    if padding is not None:
        grey = np.where(padding, 0, grey).astype(np.uint8)
    return grey


def window(values: NDArray[np.float64], center: float, width: float, function: str) -> NDArray[np.float64]:
    """Values mapped to [0, 1] by a window (PS3.3 C.11.2.1.2 for LINEAR, C.11.2.1.3 for LINEAR_EXACT and SIGMOID).

    Raises ValueError for a width that the standard does not allow.
    """
    import numpy as np

    if function == "SIGMOID":
        if width <= 0:
            raise ValueError("window width must be positive")
        with np.errstate(over="ignore"):  # far below the window it is 0
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


def scaled(values: NDArray[np.float64], padding: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Values scaled so that the smallest and largest become 0 and 255, for files without a window.

    `padding`: pixels that do not count. Raises ValueError without a finite value.
    """
    import numpy as np

    seen = values if padding is None or padding.all() else values[~padding]
    finite = seen[np.isfinite(seen)]
    if not finite.size:
        raise ValueError("no finite value")
    low, high = float(finite.min()), float(finite.max())
    filled = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return np.rint(np.clip((filled - low) / ((high - low) or 1), 0, 1) * 255).astype(np.uint8)


def _frame_header(dataset: Dataset, frame: int) -> Dataset:
    """The header with an enhanced multi-frame file's values for this frame (or for all) at the top level."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    single = dataset.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*shared[:1], *single[frame : frame + 1]]
    if not groups:
        return dataset
    header = copy(dataset)
    for group in groups:
        for name, keywords in _FUNCTIONAL_GROUPS.items():
            for item in (group.get(name) or [])[:1]:
                for keyword in keywords:
                    if item.get(keyword) is not None:
                        setattr(header, keyword, item.get(keyword))
    return header


def _padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_] | None:
    """Mask of the padding around the image (PS3.3 C.7.5.1.1.2), which is displayed black; None without padding."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = int(value), int(value if limit is None else limit)
    mask: NDArray[np.bool_] = (stored >= min(ends)) & (stored <= max(ends))
    return mask


def _first(value: Any) -> float | None:
    # Several windows are alternatives for the viewer; the first is the default. An empty value counts as absent.
    if value is None or isinstance(value, int | float):
        return value
    values = [value] if isinstance(value, str) else list(value)
    return float(values[0]) if values and str(values[0]).strip() else None
