"""Masked autoencoding, Florence-2's own objective; the other is `models.common.objectives.TextGeneration`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.common.batch import Batch
from models.florence2.config import Florence2Config, MaskedAutoencodingSettings
from models.florence2.model import Florence2
from models.florence2.reconstruction import reconstruction_loss


class MaskedAutoencoding(nn.Module):
    """Pretraining of the vision transformer: most patches are masked and reconstructed. Texts are not used."""

    def __init__(self, model: Florence2, settings: MaskedAutoencodingSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.patch_size = Florence2Config.model_validate(model.config.architecture).vision.patch_size

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, a scalar. Which patches are masked is drawn from torch's generator of the pixels' device."""
        pixels = batch["pixels"]
        patches = (pixels.shape[-1] // self.patch_size) ** 2
        kept = max(1, round(patches * (1 - self.settings.mask_ratio)))
        order = torch.rand(len(pixels), patches, device=pixels.device).argsort(dim=1)
        encoded = self.model.vision.encode(pixels, order[:, :kept])
        predicted = self.model.reconstruction(encoded, order)
        hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, order[:, :kept], False)
        normalise = self.settings.normalise_pixels
        return {"loss": reconstruction_loss(predicted, pixels, hidden, self.patch_size, normalise)}
