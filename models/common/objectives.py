"""The objective every architecture has: writing a target text given an image and a prompt."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from models.common.batch import Batch
from models.common.config import TextSettings
from models.common.pretrained import VisionLanguageModel


def target_loss(logits: Tensor, target_ids: Tensor, target_mask: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in float32 over the tokens of all targets.

    ``logits`` [n, length, vocabulary] predict ``target_ids`` [n, length] at the same positions.
    """
    is_token = target_mask.bool()
    return F.cross_entropy(logits[is_token].float(), target_ids[is_token], label_smoothing=label_smoothing)


class TextGeneration(nn.Module):
    """Predicts each token of the target from the image, the prompt and the tokens before it (teacher forcing)."""

    def __init__(self, model: VisionLanguageModel, settings: TextSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, a scalar: the mean over all target tokens."""
        logits = self.model(
            batch["pixels"],
            batch["image_index"],
            batch["prompt_ids"],
            batch["prompt_mask"],
            batch["target_ids"],
            batch["target_mask"],
        )
        return {"loss": target_loss(logits, batch["target_ids"], batch["target_mask"], self.settings.label_smoothing)}
