"""How much of an image is covered by writing: watermarks, captions, logos, memes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.base.contract import UserError
from stages.signals.config import TextCoverageConfig
from stages.signals.family import Cost, ImageFamily

if TYPE_CHECKING:
    from PIL.Image import Image


class TextCoverage(ImageFamily[TextCoverageConfig]):
    """`text_coverage`: share of the image inside boxes of text, 0..1, of any script, as
    `stages/imaging/text_boxes.py` finds them at a reduced size. Text is found, not read; four digits are kept."""

    name = "text_coverage"
    columns = {"text_coverage": "float32"}
    cost = Cost(50, "PP-OCRv4 mobile detector (Apache-2.0), 5 MB, in the package rapidocr-onnxruntime")
    Config = TextCoverageConfig

    def check(self) -> None:
        """The package carries the network."""
        from importlib.util import find_spec

        if find_spec("rapidocr_onnxruntime") is None or find_spec("onnxruntime") is None:
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
