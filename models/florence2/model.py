"""Florence-2, whole: image -> vision transformer -> projector -> encoder (with the prompt) -> decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

from models.common.batch import Batch
from models.common.checkpointing import grad_if_learning
from models.common.objectives import target_positions
from models.common.pretrained import SavedConfig, VisionLanguageModel
from models.common.text import pad_right, shift_right
from models.florence2.config import Florence2Config
from models.florence2.language import LanguageModel, mbart_config
from models.florence2.reconstruction import Reconstruction
from models.florence2.vision import VisionTransformer, vit_config


class Florence2SavedConfig(SavedConfig):
    """`config.json` of a Florence-2."""

    model_type = "pairmill_florence2"


class Florence2(VisionLanguageModel):
    """The model. Its parts: vision, reconstruction, projector, language."""

    config_class = Florence2SavedConfig

    def __init__(self, config: Florence2SavedConfig) -> None:
        super().__init__(config)
        shape = Florence2Config.model_validate(config.architecture)
        ids: dict[str, Any] = {
            "pad_id": config.pad_token_id,
            "bos_id": config.bos_token_id,
            "eos_id": config.eos_token_id,
        }
        self.vision = VisionTransformer(vit_config(shape))
        self.reconstruction = Reconstruction(shape)
        self.projector = nn.Sequential(
            nn.Linear(shape.vision.width, shape.language.width), nn.LayerNorm(shape.language.width)
        )
        self.language = LanguageModel(mbart_config(shape, **ids))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Reconstruction):
            init.normal_(module.hidden_token, std=self.config.initializer_range)
            init.normal_(module.positions, std=self.config.initializer_range)

    def named_parts(self) -> dict[str, nn.Module]:
        """Part -> its modules; every parameter is in exactly one part."""
        return {
            "vision": self.vision,
            "reconstruction": self.reconstruction,
            "projector": self.projector,
            "language": self.language,
        }

    def encode(
        self, pixels: Tensor, image_index: Tensor, prompt_ids: Tensor, prompt_mask: Tensor, full_prompts: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Encoder states [n, patches + prompt length, width] and their mask; an image passes the ViT once.

        There is no mask where there are no prompts, or where ``full_prompts`` says that none is padded.
        """
        with grad_if_learning(self.vision):
            encoded = self.vision.encode(pixels)[:, 1:]
        image = self.projector(encoded)[image_index]
        if not prompt_ids.shape[1]:
            return self.language.encode(image, None), None
        ids, mask = (prompt_ids, prompt_mask) if full_prompts else pad_right(prompt_ids, prompt_mask)
        embedded = torch.cat([image, self.language.get_input_embeddings()(ids).to(image.dtype)], dim=1)
        whole = None if full_prompts else torch.cat([mask.new_ones(image.shape[:2]), mask], dim=1)
        return self.language.encode(embedded, whole), whole

    def forward(
        self,
        pixels: Tensor,
        image_index: Tensor,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        target_ids: Tensor,
        target_mask: Tensor,
    ) -> Tensor:
        """Logits of the targets' tokens, [n, target length, vocabulary]; tensors as in `models.common.batch.Batch`."""
        states, mask = self.encode(pixels, image_index, prompt_ids, prompt_mask)
        decoded = self.language.decode(shift_right(target_ids, self.config.bos_token_id), states, mask)
        return self.language.logits(decoded)

    def summed_target_loss(self, batch: Batch, label_smoothing: float) -> Tensor:
        """Cross-entropy summed over the target tokens of a batch, a float32 scalar."""
        states, mask = self.encode(
            batch["pixels"],
            batch["image_index"],
            batch["prompt_ids"],
            batch["prompt_mask"],
            batch.get("full_prompts", False),
        )
        targets, scored = batch["target_ids"], target_positions(batch)
        decoded = self.language.decode(shift_right(targets, self.config.bos_token_id), states, mask)
        return self.language.summed_cross_entropy(
            decoded.flatten(0, 1)[scored], targets.flatten()[scored], label_smoothing
        )

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        pixels: Tensor,
        image_index: Tensor,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        *,
        num_beams: int,
        max_new_tokens: int,
        min_new_tokens: int = 0,
        length_penalty: float = 1.0,
    ) -> Tensor:
        """Ids of the answer to each prompt, int64 [n, length], right-padded after eos; an image is encoded once."""
        states, mask = self.encode(pixels, image_index, prompt_ids, prompt_mask)
        language: Any = self.language
        generated: Tensor = language.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask if mask is not None else prompt_mask.new_ones(states.shape[:2]),
            do_sample=False,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens or None,
            length_penalty=length_penalty,
        )
        return generated[:, 1:]
