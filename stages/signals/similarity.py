"""How well a caption fits its image, by a CLIP model that the user has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.contract import UserError
from stages.signals.config import ClipConfig
from stages.signals.family import Cost, JointFamily

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_KEY = "signals.clip.model"
#: Long side over short side up to which an image is shown to the processor whole: it scales the short side up.
_LONGEST = 16
#: Captions encoded at once.
_TEXTS = 64


class Clip(JointFamily[ClipConfig]):
    """`clip_similarity`: cosine of the image's and the caption's embeddings, by the model in `signals.clip.model`, with
    the processor and tokenizer of the same folder. Captions are cut at the model's length; padding does not
    reach the embedding, since CLIP reads text from left to right and takes it where the text ends.

    Nothing is fetched. Four digits are kept: in fp32 batches of any make-up and machines agree on them but for the odd
    rounding between two, so the first result stands (it is kept per raw shard). With bf16 the third digit may differ
    between kinds of GPUs.
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
        for name, what in (("config.json", "model"), ("preprocessor_config.json", "image processor")):
            if not (folder / name).is_file():
                raise UserError(f"{_KEY}={folder}: no {name}, so no {what}; name a folder in Hugging Face format")

    def identity(self) -> dict[str, Any]:
        """The contents of the model's folder."""
        from stages.artifact import file_sha256

        if self._contents is None:  # gigabytes: once per process
            folder = self._folder()
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            self._contents = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
        return {"model": self._contents}

    def setup(self) -> None:
        """Load model, processor and tokenizer; raises UserError when the folder has no whole CLIP model."""
        import torch
        from transformers import AutoTokenizer, CLIPModel
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = str(self._folder())
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._device == "cpu":
            torch.set_num_threads(1)  # Ray starts as many workers as there are cores
        try:
            model = CLIPModel.from_pretrained(folder, local_files_only=True)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as problem:
            reason = str(problem).strip().splitlines()[0]
            raise UserError(f"{_KEY}={folder}: no CLIP model in Hugging Face format: {reason}") from None
        precision = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        self._model: Any = model.eval()
        self._model.to(device=self._device, dtype=precision)
        self._length = int(self._model.config.text_config.max_position_embeddings)

    def prepare(self, rgb: Image) -> Any:
        """Pixels [3, height, width], float32."""
        short, long = sorted(rgb.size)
        if long > _LONGEST * short:
            left, top = ((n - min(n, _LONGEST * short)) // 2 for n in rgb.size)
            rgb = rgb.crop((left, top, rgb.width - left, rgb.height - top))
        return self._processor(rgb, return_tensors="np")["pixel_values"][0]

    def measure(self, prepared: Sequence[Any], captions: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
        """See the class."""
        import numpy as np
        import torch

        flat = [caption for own in captions for caption in own]
        owner = [number for number, own in enumerate(captions) for _ in own]
        if not flat:
            return [[] for _ in captions]
        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack(prepared)).to(self._device, self._model.dtype)
            images = _unit(self._model.get_image_features(pixel_values=pixels))  # [image, dimension]
            texts = torch.cat([self._encode(flat[at : at + _TEXTS]) for at in range(0, len(flat), _TEXTS)])
            cosines = (images[owner] * texts).sum(dim=1).tolist()
        scores = iter(cosines)
        return [[{"clip_similarity": round(next(scores), 4)} for _ in own] for own in captions]

    def _encode(self, texts: list[str]) -> torch.Tensor:
        """[text, dimension]."""
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=self._length, return_tensors="pt").to(
            self._device
        )
        features = self._model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return _unit(features)

    def _folder(self) -> Path:
        if self.config.model is None:
            raise UserError(f"{_KEY}: missing; name a folder with a CLIP model, or leave clip out of signals.families")
        folder = Path(self.config.model)
        if not folder.is_dir():
            raise UserError(f"{_KEY}={folder}: no such folder; name one with a CLIP model in Hugging Face format")
        return folder


def _unit(features: Any) -> torch.Tensor:
    """Embeddings of length 1 in float32, from what `get_*_features` returns."""
    pooled: torch.Tensor = features.pooler_output.float()
    return pooled / pooled.norm(dim=1, keepdim=True)
