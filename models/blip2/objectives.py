"""Stage 1, BLIP2-Adapter's own objective; the other is `models.common.objectives.TextGeneration`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blip2 import contrastive
from models.blip2.config import RepresentationSettings
from models.blip2.model import Blip2Adapter
from models.common import objectives
from models.common.batch import Batch
from models.common.text import shift_right, text_key


class Representation(nn.Module):
    """Stage 1 (BLIP-2, section 3.2): image-text contrast, matching and generation over one image encoding.

    Only targets are used, not prompts. Each text, image and token of the global batch has the same weight, however the
    batch is split into micro-batches and over ranks. What a text is compared with does depend on the split:

    - ITC compares the texts and images of one micro-batch over all ranks, so gradient accumulation does not enlarge it.
      With one accumulation step that is the global batch, whatever the number of ranks.
    - ITM draws hard negatives from this rank's micro-batch alone, since moving image features between ranks (1,370 x
      1,664 each in the 35B model) costs more than it brings, and draws them from torch's generator. A pair for which
      there is no negative is left out; the others do not weigh more for that.

    ITG, and ITM's true pairs, depend on neither.
    """

    def __init__(self, model: Blip2Adapter, settings: RepresentationSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss`` and its terms ``itc``, ``itm``, ``itg``, scalars, with ``itc_accuracy`` (text to image)."""
        model, config = self.model, self.model.config
        image = model.encode_vision(batch["pixels"])
        ids = F.pad(batch["target_ids"], (1, 0), value=config.bos_token_id)
        mask = F.pad(batch["target_mask"], (1, 0), value=1)
        itc, accuracy, similarity, positive = self._contrast(batch, image, ids, mask)
        itm = self._match(batch, image, ids, mask, similarity, positive)
        index = batch["image_index"]
        # A first token other than the encoder's makes the shared layers decode (BLIP-2's [DEC]): eos, or pad where a
        # tokenizer begins and ends its texts with the same token (OPT, GPT-2).
        first = config.pad_token_id if config.eos_token_id == config.bos_token_id else config.eos_token_id
        decoder_input = shift_right(batch["target_ids"], first)
        states = model.qformer.decode(image[index], decoder_input, batch["target_mask"]).flatten(0, 1)
        scored = objectives.target_positions(batch)
        smoothing = self.settings.label_smoothing
        itg = model.qformer.text.output(
            states[scored], batch["target_ids"].flatten()[scored], label_smoothing=smoothing
        ) / objectives.target_tokens(batch)
        weights = self.settings
        loss = weights.contrastive * itc + weights.matching * itm + weights.generation * itg
        terms = {"itc": itc, "itm": itm, "itg": itg, "itc_accuracy": accuracy}
        return {"loss": loss, **{name: value.detach() for name, value in terms.items()}}

    def _contrast(
        self, batch: Batch, image: Tensor, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """ITC, its accuracy, and this rank's text-image logits and positives, [n, m], for the hard negatives."""
        model = self.model
        images, texts, scale = model.heads(model.qformer.encode_image(image), model.qformer.encode_text(ids, mask))
        text_image = batch["image_id"]
        image_ids = contrastive.image_ids(batch["image_index"], batch["image_id"], len(image))
        keys = text_key(batch["target_ids"], batch["target_mask"])
        of_images, of_texts = contrastive.row_counts(images, texts) or (None, None)
        all_images, all_image_ids = contrastive.gather(images, of_images), contrastive.gather(image_ids, of_images)
        all_texts, all_keys = contrastive.gather(texts, of_texts), contrastive.gather(keys, of_texts)
        all_text_image = contrastive.gather(text_image, of_texts)

        to_image = scale * torch.einsum("nd,mqd->nmq", texts, all_images).amax(dim=-1)
        to_text = scale * torch.einsum("mqd,nd->mnq", images, all_texts).amax(dim=-1)
        text_positives = contrastive.positives(text_image, keys, all_text_image, all_keys, all_image_ids)
        image_positives = contrastive.positives(all_text_image, all_keys, all_text_image, all_keys, image_ids).T
        smoothing = self.settings.label_smoothing
        per_text = contrastive.soft_cross_entropy(to_image, text_positives, smoothing) / objectives.texts(batch)
        per_image = contrastive.soft_cross_entropy(to_text, image_positives, smoothing) / len(image)
        loss = (per_text + per_image) / 2
        hits = text_positives.gather(1, to_image.argmax(dim=1, keepdim=True))
        accuracy = hits.sum() / objectives.texts(batch)
        similarity = scale * torch.einsum("nd,mqd->nmq", texts, images).amax(dim=-1)
        positive = contrastive.positives(text_image, keys, all_text_image, all_keys, image_ids)
        return loss, accuracy, similarity, positive

    def _match(
        self, batch: Batch, image: Tensor, ids: Tensor, mask: Tensor, similarity: Tensor, positive: Tensor
    ) -> Tensor:
        """ITM over the pairs, each text with a hard negative image, and each image with a hard negative text.

        A third of the weight is for each of the three kinds.
        """
        index = batch["image_index"]
        negative_image, has_image = contrastive.hard_negatives(similarity, positive)
        negative_text, has_text = contrastive.hard_negatives(similarity.T[index], positive.T[index])
        states = self.model.qformer.encode_pair(
            torch.cat([image[index], image[negative_image], image[index]]),
            torch.cat([ids, ids, ids[negative_text]]),
            torch.cat([mask, mask, mask[negative_text]]),
        )
        logits = self.model.heads.matching(states).float().mean(dim=1)
        pairs = len(index)
        match = torch.zeros(3 * pairs, dtype=torch.long, device=logits.device)
        match[:pairs] = 1
        counts = torch.cat([torch.ones_like(has_image), has_image, has_text]).float()
        per_pair = F.cross_entropy(logits, match, reduction="none")
        return (per_pair * counts).sum() / (3 * objectives.texts(batch))
