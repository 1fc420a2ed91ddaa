"""BLIP2-Adapter, whole: image -> vision transformer -> Q-Former -> adapters or projection -> language model."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from models.blip2.adapter import Adapters, GatedCrossAttention
from models.blip2.config import Blip2Config
from models.blip2.language import build_language, decoder_layers, embed, hidden_states, logits_of, summed_loss
from models.blip2.qformer import QFormer, QueryTokens
from models.blip2.vision import build_vision
from models.common.batch import Batch
from models.common.checkpointing import grad_if_learning
from models.common.objectives import target_positions
from models.common.pretrained import SavedConfig, VisionLanguageModel
from models.common.text import frame_prompt, rotate_left


class Blip2SavedConfig(SavedConfig):
    """`config.json` of a BLIP2-Adapter."""

    model_type = "pairmill_blip2"


class Heads(nn.Module):
    """Stage 1's projections for ITC, its learned temperature, and ITM's classifier."""

    def __init__(self, config: Blip2Config) -> None:
        super().__init__()
        width, size = config.qformer.width, config.heads.projection
        self.image = nn.Linear(width, size)
        self.text = nn.Linear(width, size)
        self.matching = nn.Linear(width, 2)
        self.initial_logit_scale = -math.log(config.heads.temperature)
        self.logit_scale = nn.Parameter(torch.full((1,), self.initial_logit_scale))

    def forward(self, queries: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit-length float32 features of images [m, queries, size] and texts [n, size], and 1 / temperature [1].

        The temperature is learned as a logarithm and never falls below 0.01 (as in CLIP), so it stays positive.
        """
        image = nn.functional.normalize(self.image(queries).float(), dim=-1)
        features = nn.functional.normalize(self.text(text).float(), dim=-1)
        return image, features, self.logit_scale.float().clamp(max=math.log(100)).exp()


class Blip2Adapter(VisionLanguageModel):
    """The model. Its parts: vision, qformer, qformer_text, heads, adapters or projection, language."""

    config_class = Blip2SavedConfig
    _tied_weights_keys = {"qformer.text.output.weight": "qformer.text.words.weight"}

    def __init__(self, config: Blip2SavedConfig) -> None:
        super().__init__(config)
        shape = Blip2Config.model_validate(config.architecture)
        ids: dict[str, Any] = {
            "pad_id": config.pad_token_id,
            "bos_id": config.bos_token_id,
            "eos_id": config.eos_token_id,
        }
        self.bridge = shape.bridge
        self.vision = build_vision(shape)
        self.qformer = QFormer(shape)
        self.heads = Heads(shape)
        if shape.bridge == "adapters":
            self.adapters = Adapters(shape)
        else:
            self.projection = nn.Linear(shape.qformer.width, shape.language.width)
        self.language = build_language(shape, **ids)
        if shape.bridge == "adapters":
            self.adapters.attach(decoder_layers(self.language))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GatedCrossAttention):
            init.constant_(module.gate, module.initial_gate)
            if module.zero_output:
                init.zeros_(module.out.weight)
        elif isinstance(module, Heads):
            init.constant_(module.logit_scale, module.initial_logit_scale)
        elif isinstance(module, QueryTokens):
            init.normal_(module.tokens, std=self.config.initializer_range)

    def named_parts(self) -> dict[str, nn.Module]:
        """Part -> its modules; every parameter is in exactly one part."""
        bridge: dict[str, nn.Module] = (
            {"adapters": self.adapters} if self.bridge == "adapters" else {"projection": self.projection}
        )
        return {
            "vision": self.vision,
            **self.qformer.parts(),
            "heads": self.heads,
            **bridge,
            "language": self.language,
        }

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """``pixels`` [m, 3, height, width] -> the Q-Former's outputs [m, queries, width]."""
        return self.qformer.encode_image(self.encode_vision(pixels))

    def encode_vision(self, pixels: Tensor) -> Tensor:
        """``pixels`` [m, 3, height, width] -> the vision transformer's outputs [m, 1 + patches, width]."""
        with grad_if_learning(self.vision):
            return self.vision.encode(pixels)

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
        states = self._hidden_states(pixels, image_index, prompt_ids, prompt_mask, target_ids)
        each = torch.arange(target_ids.shape[1], device=target_ids.device).expand_as(target_ids)
        predicting = (prompt_mask.sum(dim=1, keepdim=True) + each)[..., None].expand(-1, -1, states.shape[-1])
        return logits_of(self.language, states.gather(1, predicting))

    def summed_target_loss(self, batch: Batch, label_smoothing: float) -> Tensor:
        """Cross-entropy summed over the target tokens of a batch, a float32 scalar."""
        prompt_mask, targets = batch["prompt_mask"], batch["target_ids"]
        states = self._hidden_states(batch["pixels"], batch["image_index"], batch["prompt_ids"], prompt_mask, targets)
        scored = target_positions(batch)
        row, token = scored // targets.shape[1], scored % targets.shape[1]
        predicting = row * states.shape[1] + prompt_mask.sum(dim=1)[row] + token
        return summed_loss(self.language, states.flatten(0, 1)[predicting], targets.flatten()[scored], label_smoothing)

    def _hidden_states(
        self, pixels: Tensor, image_index: Tensor, prompt_ids: Tensor, prompt_mask: Tensor, target_ids: Tensor
    ) -> Tensor:
        """The language model's states of the texts, [n, prompt length + target length, width].

        The row's first token of the target is predicted at the place that is the number of its prompt's tokens.
        """
        prompt, mask = self._frame(prompt_ids, prompt_mask)
        ids = torch.cat([prompt, target_ids[:, :-1]], dim=1)
        if prompt_ids.shape[1]:
            ids = rotate_left(ids, prompt.shape[1] - mask.sum(dim=1))  # all padding to the right, where none attends
        embedded = embed(self.language, ids)
        image = self.image_tokens(pixels)[image_index]
        if self.bridge == "adapters":
            with self.adapters.attending(image):
                return hidden_states(self.language, embedded)
        prefix = self.projection(image).to(embedded.dtype)
        return hidden_states(self.language, torch.cat([prefix, embedded], dim=1))[:, prefix.shape[1] :]

    def _frame(self, prompt_ids: Tensor, prompt_mask: Tensor) -> tuple[Tensor, Tensor]:
        pad, bos = self.config.pad_token_id, self.config.bos_token_id
        return frame_prompt(prompt_ids, prompt_mask, pad_id=pad, bos_id=bos)

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
        """Ids that follow each prompt, int64 [n, length], right-padded after eos; an image is encoded once."""
        prompt, mask = self._frame(prompt_ids, prompt_mask)
        image = self.image_tokens(pixels)[image_index]
        language: Any = self.language
        search = partial(
            language.generate,
            do_sample=False,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens or None,
            length_penalty=length_penalty,
        )
        if self.bridge == "adapters":
            with self.adapters.attending(image):
                generated: Tensor = search(input_ids=prompt, attention_mask=mask)
            return generated[:, prompt.shape[1] :]
        embedded = embed(self.language, prompt)
        prefix = self.projection(image).to(embedded.dtype)
        # Of ids that come with embeddings, beam search uses but their number.
        ids = torch.cat([prompt.new_full(prefix.shape[:2], self.config.pad_token_id), prompt], dim=1)
        together = torch.cat([prefix, embedded], dim=1)
        attended = torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)
        # Padding goes to the left of the prefix, not behind it: a sliding window counts places, padded ones too.
        order = attended.sort(dim=1, stable=True).indices
        generated = search(
            input_ids=ids,
            inputs_embeds=together.gather(1, order[..., None].expand_as(together)),
            attention_mask=attended.gather(1, order),
        )
        return generated[:, ids.shape[1] :]
