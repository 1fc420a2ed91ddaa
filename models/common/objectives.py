"""The objective every architecture has: writing a target text given an image and a prompt."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn import functional as F

from models.common.batch import Batch
from models.common.config import TextSettings
from models.common.pretrained import VisionLanguageModel


@runtime_checkable
class SumsTargetLoss(Protocol):
    """A model that scores target tokens itself, without holding the logits of all of them."""

    def summed_target_loss(self, batch: Batch, label_smoothing: float) -> Tensor:
        """Cross-entropy summed over the target tokens of a batch, a float32 scalar."""
        ...


def target_positions(batch: Batch) -> Tensor:
    """int64 [target tokens]: where ``target_mask``, flattened, is 1."""
    if "target_positions" in batch:
        return batch["target_positions"]
    return batch["target_mask"].flatten().nonzero().squeeze(1)


def target_tokens(batch: Batch) -> Tensor:
    """What a loss summed over a batch's target tokens is divided by, a scalar: see `Batch.mean_target_tokens`."""
    return batch["mean_target_tokens"] if "mean_target_tokens" in batch else batch["target_mask"].sum()


def texts(batch: Batch) -> Tensor:
    """What a loss summed over a batch's texts is divided by, a scalar: see `Batch.mean_texts`."""
    if "mean_texts" in batch:
        return batch["mean_texts"]
    return batch["target_mask"].new_tensor(len(batch["target_mask"]))


class TextGeneration(nn.Module):
    """Predicts each token of the target from the image, the prompt and the tokens before it (teacher forcing).

    The loss is the mean over the target tokens of the global batch (see `Batch.mean_target_tokens`), so its gradient
    depends on neither the micro-batch nor the number of ranks.
    """

    def __init__(self, model: VisionLanguageModel, settings: TextSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, a scalar: cross-entropy in float32, summed over target tokens, by their mean number."""
        smoothing = self.settings.label_smoothing
        if isinstance(self.model, SumsTargetLoss):
            summed = self.model.summed_target_loss(batch, smoothing)
        else:
            summed = self._from_logits(batch, smoothing)
        return {"loss": summed / target_tokens(batch)}

    def _from_logits(self, batch: Batch, label_smoothing: float) -> Tensor:
        logits = self.model(
            batch["pixels"],
            batch["image_index"],
            batch["prompt_ids"],
            batch["prompt_mask"],
            batch["target_ids"],
            batch["target_mask"],
        )
        scored = target_positions(batch)
        return F.cross_entropy(
            logits.flatten(0, 1)[scored].float(),
            batch["target_ids"].flatten()[scored],
            label_smoothing=label_smoothing,
            reduction="sum",
        )
