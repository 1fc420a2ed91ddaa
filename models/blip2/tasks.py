"""BLIP2-Adapter's two training objectives behind one shape: `forward(batch)` returns the loss and its parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch import Batch
from models.blip2 import losses
from models.blip2.config import LanguageModelingSettings, RepresentationSettings
from models.blip2.model import Blip2Adapter
from models.text import shift_right, target_loss, text_key

#: The parts each objective uses; the others get no gradient and must be frozen or left out of the optimizer.
USED = {
    "representation": ("vision", "qformer", "qformer_text", "heads"),
    "language_modeling": ("vision", "qformer", "adapters", "language"),
}


class Representation(nn.Module):
    """Stage 1 (BLIP-2, section 3.2): image-text contrast, matching and generation over one image encoding.

    Contrastive negatives are those of one micro-batch over all ranks: gradient accumulation does not enlarge them.
    Hard negatives for matching come from this rank's micro-batch alone, since moving image features between ranks
    (1,370 x 1,664 each in the 35B model) costs more than it brings. Only targets are read: prompts play no part.
    """

    def __init__(self, model: Blip2Adapter, settings: RepresentationSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss`` and its parts ``itc``, ``itm``, ``itg``, scalars, with ``itc_accuracy`` (text to image)."""
        model, config = self.model, self.model.config
        image = model.vision.encode(batch["pixels"])
        ids = F.pad(batch["target_ids"], (1, 0), value=config.bos_token_id)
        mask = F.pad(batch["target_mask"], (1, 0), value=1)
        itc, accuracy, similarity, positive = self._contrast(batch, image, ids, mask)
        itm = self._match(batch, image, ids, mask, similarity, positive)
        index = batch["image_index"]
        # A different first token than the encoder's tells the shared layers to write (BLIP-2's [DEC]): eos, or pad
        # where a tokenizer begins and ends its texts with the same token (OPT, GPT-2).
        first = config.pad_token_id if config.eos_token_id == config.bos_token_id else config.eos_token_id
        given = shift_right(batch["target_ids"], first)
        logits = model.qformer.write(image[index], given, batch["target_mask"])
        smoothing = self.settings.label_smoothing
        itg = target_loss(logits, batch["target_ids"], batch["target_mask"], smoothing)
        weights = self.settings
        loss = weights.contrastive * itc + weights.matching * itm + weights.generation * itg
        parts = {"itc": itc, "itm": itm, "itg": itg, "itc_accuracy": accuracy}
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}

    def _contrast(
        self, batch: Batch, image: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """ITC, its accuracy, and this rank's text-image logits and positives, [n, m], for the hard negatives."""
        model = self.model
        seen, read, scale = model.heads(model.qformer.see(image), model.qformer.read(ids, mask))
        of_text, own = batch["image_id"], losses.image_ids(batch["image_index"], batch["image_id"], len(image))
        keys = text_key(batch["target_ids"], batch["target_mask"])
        all_seen, all_read = losses.gather(seen), losses.gather(read)
        all_of_text, all_own, all_keys = losses.gather(of_text), losses.gather(own), losses.gather(keys)

        to_image = scale * torch.einsum("nd,mqd->nmq", read, all_seen).amax(dim=-1)
        to_text = scale * torch.einsum("mqd,nd->mnq", seen, all_read).amax(dim=-1)
        true_of = losses.positives(of_text, keys, all_of_text, all_keys, all_own)
        told_by = losses.positives(all_of_text, all_keys, all_of_text, all_keys, own).T
        smoothing = self.settings.label_smoothing
        loss = (
            losses.soft_cross_entropy(to_image, true_of, smoothing)
            + losses.soft_cross_entropy(to_text, told_by, smoothing)
        ) / 2
        hit = true_of.gather(1, to_image.argmax(dim=1, keepdim=True)).float().mean()
        similarity = scale * torch.einsum("nd,mqd->nmq", read, seen).amax(dim=-1)
        return loss, hit, similarity, losses.positives(of_text, keys, all_of_text, all_keys, own)

    def _match(
        self, batch: Batch, image: Tensor, ids: Tensor, mask: Tensor, similarity: Tensor, positive: Tensor
    ) -> Tensor:
        """ITM over the pairs, each text with a hard wrong image, and each image with a hard wrong text."""
        index = batch["image_index"]
        wrong_image, image_found = losses.hard_negatives(similarity, positive)
        wrong_text, text_found = losses.hard_negatives(similarity.T[index], positive.T[index])
        states = self.model.qformer.fuse(
            torch.cat([image[index], image[wrong_image], image[index]]),
            torch.cat([ids, ids, ids[wrong_text]]),
            torch.cat([mask, mask, mask[wrong_text]]),
        )
        logits = self.model.heads.matching(states).float().mean(dim=1)
        pairs = len(index)
        match = torch.zeros(3 * pairs, dtype=torch.long, device=logits.device)
        match[:pairs] = 1
        counts = torch.cat([torch.ones_like(image_found), image_found, text_found]).float()
        per_pair = F.cross_entropy(logits, match, reduction="none")
        return (per_pair * counts).sum() / counts.sum()


class LanguageModeling(nn.Module):
    """Stage 2 and fine-tuning: the target's tokens given image and prompt, through the adapters."""

    def __init__(self, model: Blip2Adapter, settings: LanguageModelingSettings) -> None:
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
