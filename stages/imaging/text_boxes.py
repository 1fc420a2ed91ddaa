"""Detects text in images: a small detector shared by ingest and signals.

The network is PP-OCRv4's mobile detector (Apache-2.0), as shipped in the package `rapidocr-onnxruntime`: it predicts
for each pixel the probability that it belongs to text, in any script. It detects text and does not read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base.contract import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_PACKAGE = "rapidocr_onnxruntime"
#: File and sha256 of the networks with which the figures in docs were measured (rapidocr-onnxruntime 1.4.4).
DETECTOR = ("models/ch_PP-OCRv4_det_infer.onnx", "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9")
READER = ("models/ch_PP-OCRv4_rec_infer.onnx", "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b")
#: Input sides must be multiples of 32: the network halves its input five times.
_MULTIPLE = 32


@dataclass(frozen=True, order=True)
class Box:
    """An upright rectangle of pixels that holds text, as half-open ranges: right and bottom are outside."""

    top: int
    left: int
    bottom: int
    right: int
    score: float
    """Mean probability of text over the detected glyphs, 0..1."""


class TextDetector:
    """Finds lines or words of text in an image. One instance per process; equal images give equal boxes.

    Cost on one core of a 2 GHz server: about 0.25 s for an image scaled to 960x840, proportional to that area.
    """

    def __init__(
        self,
        side: int = 960,
        upscale: float = 2.0,
        pixel_threshold: float = 0.3,
        box_threshold: float = 0.5,
        spread: float = 1.6,
    ) -> None:
        """Load the network on one thread of the CPU.

        Images are scaled for detection so that their longer side is `side` pixels, but never by more than `upscale`.
        `pixel_threshold`, `box_threshold` (of a box's mean probability) and `spread` (how far the shrunken cores that
        the network predicts are expanded; "unclip ratio", Liao et al. 2020, arXiv:1911.08947, section 3.4) default to
        the package's own values. Raises UserError if the package is missing or ships another model.
        """
        self.side = side
        self.upscale = upscale
        self.pixel_threshold = pixel_threshold
        self.box_threshold = box_threshold
        self.spread = spread
        self._session = network(*DETECTOR)
        self._input = self._session.get_inputs()[0].name

    def boxes(self, rgb: Image) -> list[Box]:
        """Boxes of text in a Pillow image (any mode; transparency is dropped), sorted from top to bottom."""
        import numpy as np
        from PIL import Image as Pillow

        width, height = rgb.size
        scale = min(self.side / max(width, height), self.upscale)
        wide, high = (max(_MULTIPLE, round(n * scale / _MULTIPLE) * _MULTIPLE) for n in (width, height))
        scaled = rgb.convert("RGB").resize((wide, high), Pillow.Resampling.BILINEAR)
        # BGR, as the network was trained; [-1, 1].
        pixels = np.asarray(scaled, dtype=np.float32)[:, :, ::-1] / 127.5 - 1
        feed = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])  # [1, 3, height, width]
        probability: NDArray[np.float32] = self._session.run(None, {self._input: feed})[0][0, 0]
        boxes = []
        for top, left, bottom, right, score in self._regions(probability):
            box = Box(
                max(0, int(top * height / high)),
                max(0, int(left * width / wide)),
                min(height, -int(-bottom * height // high)),
                min(width, -int(-right * width // wide)),
                round(score, 4),
            )
            if box.bottom - box.top > 3 and box.right - box.left > 3:
                boxes.append(box)
        return sorted(boxes)

    def _regions(self, probability: NDArray[np.float32]) -> Iterable[tuple[float, float, float, float, float]]:
        """(top, left, bottom, right, score) of every connected core, expanded, in pixels of the map."""
        import numpy as np
        from scipy import ndimage

        labels, count = ndimage.label(probability > self.pixel_threshold, structure=np.ones((3, 3), dtype=int))
        numbers = np.arange(1, count + 1)
        scores = ndimage.mean(probability, labels, numbers) if count else []
        for rows_columns, score in zip(ndimage.find_objects(labels), scores, strict=True):
            rows, columns = rows_columns
            high, wide = rows.stop - rows.start, columns.stop - columns.start
            if min(high, wide) < 3 or score < self.box_threshold:
                continue
            # Distance of the offset polygon: area x ratio / perimeter, here of the upright rectangle.
            grow = high * wide * self.spread / (2 * (high + wide))
            yield rows.start - grow, columns.start - grow, rows.stop + grow, columns.stop + grow, float(score)


def coverage(boxes: Iterable[Box], size: tuple[int, int]) -> float:
    """Share of an image of `size` (width, height) covered by at least one box, 0..1."""
    return float(covered(boxes, size).mean())


def covered(boxes: Iterable[Box], size: tuple[int, int], margin: float = 0.0) -> NDArray[np.bool_]:
    """Mask of the pixels inside a box, bool [height, width]; each box is expanded by `margin` × its shorter side."""
    import numpy as np

    width, height = size
    mask = np.zeros((height, width), dtype=np.bool_)
    for box in boxes:
        more = round(margin * min(box.bottom - box.top, box.right - box.left))
        mask[max(0, box.top - more) : box.bottom + more, max(0, box.left - more) : box.right + more] = True
    return mask


def require_detector(key: str) -> None:
    """Raise UserError, naming config key `key`, if the packages that :class:`TextDetector` needs are missing."""
    try:
        _model_file(DETECTOR[0])
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def _model_file(name: str) -> Path:
    # The package itself is not imported, to avoid loading OpenCV: only its model file is used.
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations or find_spec("onnxruntime") is None:
        raise UserError("text detection needs its network: pip install rapidocr-onnxruntime==1.4.4")
    return Path(next(iter(spec.submodule_search_locations))) / name


def network(name: str, sha256: str) -> Any:
    """An onnxruntime session on one thread with one of the package's networks.

    Raises UserError if the package is missing or ships another file.
    """
    content = _model_file(name).read_bytes()
    import onnxruntime

    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError("text detection: another model is installed; pip install rapidocr-onnxruntime==1.4.4")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
