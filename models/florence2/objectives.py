"""Masked autoencoding, Florence-2's own objective; the other is `models.common.objectives.TextGeneration`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.common.batch import Batch
from models.florence2.config import Florence2Config, MaskedAutoencodingSettings
from models.florence2.model import Florence2
from models.florence2.reconstruction import random_order, reconstruction_loss


class MaskedAutoencoding(nn.Module):
    """Pretraining of the vision transformer: most patches are masked and reconstructed. Texts are not used."""

    def __init__(self, model: Florence2, settings: MaskedAutoencodingSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.patch_size = Florence2Config.model_validate(model.config.architecture).vision.patch_size

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, a scalar. Which patches are masked follows from each image's `image_seed`.

        Every image hides as many, so the mean over micro-batches is that over the global batch, whose gradient depends
        on neither the micro-batch nor the number of ranks. Without seeds torch's generator decides.
        """
        pixels = batch["pixels"]
        patches = (pixels.shape[-1] // self.patch_size) ** 2
        kept = max(1, min(patches - 1, round(patches * (1 - self.settings.mask_ratio))))
        if "image_seed" in batch:
            order = random_order(batch["image_seed"], patches)
        else:
            order = torch.rand(len(pixels), patches, device=pixels.device).argsort(dim=1)
        encoded = self.model.vision.encode(pixels, order[:, :kept])
        predicted = self.model.reconstruction(encoded, order)
        hidden = torch.ones_like(order, dtype=torch.bool).scatter(1, order[:, :kept], False)
        normalise = self.settings.normalise_pixels
        return {"loss": reconstruction_loss(predicted, pixels, hidden, self.patch_size, normalise)}
