"""Loads a CLIP model from a local folder and embeds images and texts with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base.contract import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

#: Long side over short side beyond which an image is cropped first, since the processor scales the short side up.
_LONGEST = 16
#: Texts per batch.
_TEXTS = 64


def check_folder(folder: Path, named: str) -> None:
    """Raises UserError, beginning with `named`, if the folder obviously holds no CLIP model; loads nothing."""
    if not folder.is_dir():
        raise UserError(f"{named}: no such folder; name one with a CLIP model in Hugging Face format")
    for name, what in (("config.json", "model"), ("preprocessor_config.json", "image processor")):
        if not (folder / name).is_file():
            raise UserError(f"{named}: no {name}, so no {what}; name a folder in Hugging Face format")


def file_digests(folder: Path) -> dict[str, str]:
    """Path in the folder -> SHA-256 of the file: what the embeddings depend on. Reads every file."""
    from stages.base.artifact import file_sha256

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


class ClipModel:
    """A CLIP model with its tokenizer and image processor, on the GPU if there is one; downloads nothing."""

    def __init__(self, folder: Path, named: str, *, bf16: bool = False) -> None:
        """Load a folder in Hugging Face format: `config.json`, weights, `preprocessor_config.json`, a tokenizer.

        Raises UserError, beginning with `named`, if the folder holds no complete CLIP model.
        """
        import torch
        from transformers import AutoTokenizer, CLIPModel
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
        from transformers.utils import logging

        check_folder(folder, named)
        logging.disable_progress_bar()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
            if kind != "clip":
                raise ValueError(f"config.json is of a {kind} model")
            loaded: Any = CLIPModel.from_pretrained(str(folder), local_files_only=True, output_loading_info=True)
            model, info = loaded
            if info["missing_keys"]:  # they would be initialised at random
                raise ValueError(f"its weights lack {min(info['missing_keys'])}")
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            self._processor = CLIPImageProcessorPil.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError, AttributeError) as problem:
            reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            raise UserError(f"{named}: no CLIP model in Hugging Face format: {reason}") from None
        self._model: Any = model.eval()
        self._model.to(device=self.device, dtype=torch.bfloat16 if bf16 else torch.float32)
        self._length = int(self._model.config.text_config.max_position_embeddings)

    def pixels(self, rgb: Image) -> NDArray[np.float32]:
        """The model's input for an image: float32 [3, height, width]."""
        short, long = sorted(rgb.size)
        if long > _LONGEST * short:
            left, top = ((n - min(n, _LONGEST * short)) // 2 for n in rgb.size)
            rgb = rgb.crop((left, top, rgb.width - left, rgb.height - top))
        pixels: NDArray[np.float32] = self._processor(rgb, return_tensors="np")["pixel_values"][0]
        return pixels

    def embed_images(self, pixels: Sequence[NDArray[np.float32]]) -> torch.Tensor:
        """Unit embeddings, float32 [images, dimension], of all images in one batch."""
        import numpy as np
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(pixels)).to(self.device, self._model.dtype)
            return _unit(self._model.get_image_features(pixel_values=batch))

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit embeddings, float32 [texts, dimension], of one or more texts, each truncated to the model's length.

        Padding does not affect the embedding: CLIP's text encoder is causal and pools at the end of the text.
        """
        import torch

        with torch.inference_mode():
            return torch.cat([self._encode(list(texts[at : at + _TEXTS])) for at in range(0, len(texts), _TEXTS)])

    def _encode(self, texts: list[str]) -> torch.Tensor:
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=self._length, return_tensors="pt").to(
            self.device
        )
        features = self._model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return _unit(features)


def _unit(features: Any) -> torch.Tensor:
    """Unit embeddings in float32, from the output of `get_*_features`."""
    pooled: torch.Tensor = features.pooler_output.float()
    return pooled / pooled.norm(dim=1, keepdim=True)
