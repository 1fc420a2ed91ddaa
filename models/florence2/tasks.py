"""Florence-2's two training objectives behind one shape: `forward(batch)` returns the loss and its parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.batch import Batch
from models.florence2.config import (
    Florence2Config,
    MaskedAutoencodingSettings,
    SequenceToSequenceSettings,
)
from models.florence2.model import Florence2
from models.florence2.reconstruction import reconstruction_loss
from models.text import target_loss

#: The parts each objective uses; the others get no gradient and must be frozen or left out of the optimizer.
USED = {
    "masked_autoencoding": ("vision", "reconstruction"),
    "sequence_to_sequence": ("vision", "projector", "language"),
}


class MaskedAutoencoding(nn.Module):
    """Pretraining of the vision transformer: most patches are hidden and rebuilt from the rest. Texts play no part."""

    def __init__(self, model: Florence2, settings: MaskedAutoencodingSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.patch_size = Florence2Config.model_validate(model.config.architecture).vision.patch_size

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, a scalar. Which patches are hidden comes from torch's generator of the pixels' device."""
        pixels = batch["pixels"]
        patches = (pixels.shape[-1] // self.patch_size) ** 2
        kept = max(1, round(patches * (1 - self.settings.mask_ratio)))
        order = torch.rand(len(pixels), patches, device=pixels.device).argsort(dim=1)
        encoded = self.model.vision.encode(pixels, order[:, :kept])
        predicted = self.model.reconstruction(encoded, order)
        hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, order[:, :kept], False)
        normalise = self.settings.normalise_pixels
        return {"loss": reconstruction_loss(predicted, pixels, hidden, self.patch_size, normalise)}


class SequenceToSequence(nn.Module):
    """Every task with an answer in words: the target's tokens given image and prompt."""

    def __init__(self, model: Florence2, settings: SequenceToSequenceSettings) -> None:
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
        smoothing = self.settings.label_smoothing
        return {"loss": target_loss(logits, batch["target_ids"], batch["target_mask"], smoothing)}
