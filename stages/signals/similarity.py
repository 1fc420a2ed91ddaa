"""The family that measures how well a caption fits its image, by a CLIP model that the user provides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base.contract import UserError
from stages.imaging.clip_model import ClipModel, check_folder, file_digests
from stages.signals.config import ClipConfig
from stages.signals.family import Cost, JointFamily

if TYPE_CHECKING:
    from PIL.Image import Image

_KEY = "signals.clip.model"


class Clip(JointFamily[ClipConfig]):
    """`clip_similarity`: cosine of the image's and the caption's embeddings, by the model in `signals.clip.model`, with
    the processor and tokenizer of the same folder. Captions are truncated to the model's length; padding does not
    affect the embedding, since CLIP's text encoder is causal and pools at the end of the text.

    Nothing is downloaded. Rounded to four digits: in fp32 these agree between machines and batches of any composition,
    except for an occasional rounding tie, so the first result is reused (it is cached per raw shard). With bf16 the
    third digit may differ between kinds of GPUs.
    """

    name = "clip"
    columns = {"clip_similarity": "float32"}
    cost = Cost(200, "the user's own; the time is that of ViT-B/32 on a CPU", gpu=True)
    batch = 32
    Config = ClipConfig

    _contents: dict[str, str] | None = None

    def check(self) -> None:
        """The folder holds a CLIP model."""
        folder = self._folder()
        check_folder(folder, _named(folder))

    def identity(self) -> dict[str, Any]:
        """The contents of the model's folder."""
        if self._contents is None:  # gigabytes: once per process
            self._contents = file_digests(self._folder())
        return {"model": self._contents}

    def setup(self) -> None:
        """Load model, processor and tokenizer; raises UserError if the folder holds no complete CLIP model."""
        import torch

        if not torch.cuda.is_available():
            torch.set_num_threads(1)  # Ray starts as many workers as there are cores
        folder = self._folder()
        self._model = ClipModel(folder, _named(folder), bf16=self.config.precision == "bf16")

    def prepare(self, rgb: Image) -> Any:
        """Pixels [3, height, width], float32."""
        return self._model.pixels(rgb)

    def measure(self, prepared: Sequence[Any], captions: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
        """See the class."""
        flat = [caption for texts in captions for caption in texts]
        owner = [number for number, texts in enumerate(captions) for _ in texts]
        if not flat:
            return [[] for _ in captions]
        images = self._model.embed_images(prepared)
        cosines = (images[owner] * self._model.embed_texts(flat)).sum(dim=1).tolist()
        scores = iter(cosines)
        return [[{"clip_similarity": round(next(scores), 4)} for _ in texts] for texts in captions]

    def _folder(self) -> Path:
        if self.config.model is None:
            raise UserError(f"{_KEY}: missing; name a folder with a CLIP model, or leave clip out of signals.families")
        folder = Path(self.config.model)
        if not folder.is_dir():
            raise UserError(f"{_KEY}={folder}: no such folder; name one with a CLIP model in Hugging Face format")
        return folder


def _named(folder: Path) -> str:
    return f"{_KEY}={folder}"
