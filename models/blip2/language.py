"""The decoder language model: OPT's layers and weight names, each preceded by an optional gated adapter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, OPTConfig
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.opt.modeling_opt import (
    OPTDecoderLayer,
    OPTLearnedPositionalEmbedding,
    OPTPreTrainedModel,
)

from models.blip2.config import Blip2Config
from models.common.output_layer import OutputLayer
from models.common.text import positions


def opt_config(config: Blip2Config, *, pad_id: int, bos_id: int, eos_id: int) -> OPTConfig:
    """The `transformers` config of the language model."""
    language = config.language
    return OPTConfig(
        vocab_size=config.vocabulary,
        hidden_size=language.width,
        num_hidden_layers=language.layers,
        num_attention_heads=language.heads,
        ffn_dim=language.mlp_width,
        max_position_embeddings=language.positions,
        dropout=language.dropout,
        init_std=config.initialiser_range,
        pad_token_id=pad_id,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
    )


class AdaptedLayer(OPTDecoderLayer):
    """An OPT layer that first applies its adapter, if there is one, to the hidden states."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        image_tokens: Tensor | None = None,
        adapter: nn.Module | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """``hidden_states`` [n, length, width], ``image_tokens`` [n, queries, Q-Former width]."""
        if adapter is not None and image_tokens is not None:
            hidden_states = adapter(hidden_states, image_tokens)
        return super().forward(hidden_states, **kwargs)


class Decoder(nn.Module):
    """Embeddings, layers and the last norm; the names are those of OPT's checkpoints."""

    def __init__(self, config: OPTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, width, config.pad_token_id)
        self.embed_positions = OPTLearnedPositionalEmbedding(config.max_position_embeddings, width)
        self.layers = nn.ModuleList(AdaptedLayer(config, index) for index in range(config.num_hidden_layers))
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        past: Cache | None,
        image_tokens: Tensor | None,
        adapters: nn.ModuleDict | None,
    ) -> Tensor:
        """``input_ids`` [n, length], ``attention_mask`` [n, past + length] -> hidden states [n, length, width].

        Without a mask (and without a past) attention is causal and nothing more, for which SDPA has its fastest kernel:
        right for rows that begin with a token, whose padding no token attends to.
        """
        hidden = self.embed_tokens(input_ids)
        if attention_mask is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        else:
            position_ids = positions(attention_mask)[:, -input_ids.shape[1] :]
        hidden = hidden + self.embed_positions(attention_mask, position_ids=position_ids)
        mask = create_causal_mask(
            config=self.config, inputs_embeds=hidden, attention_mask=attention_mask, past_key_values=past
        )
        for index, layer in enumerate(self.layers):
            adapter = adapters[str(index)] if adapters is not None and str(index) in adapters else None
            hidden = layer(hidden, image_tokens, adapter, attention_mask=mask, past_key_values=past)
        return self.final_layer_norm(hidden)


class Body(nn.Module):
    """A level of nesting that names weights ``model.decoder...``, as in OPT's checkpoints."""

    def __init__(self, config: OPTConfig) -> None:
        super().__init__()
        self.decoder = Decoder(config)


class LanguageModel(OPTPreTrainedModel, GenerationMixin):
    """OPT for causal language modelling that can attend to image tokens through adapters.

    The adapters are an argument of each call, not submodules, so the language model's weights are those of OPT.
    """

    _tied_weights_keys = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
    _no_split_modules = ["AdaptedLayer"]

    def __init__(self, config: OPTConfig) -> None:
        super().__init__(config)
        self.model = Body(config)
        self.lm_head = OutputLayer(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings, which the output layer is tied to."""
        return self.model.decoder.embed_tokens

    def hidden_states(self, input_ids: Tensor, image_tokens: Tensor, adapters: nn.ModuleDict) -> Tensor:
        """What `lm_head` takes, [n, length, width], of rows of ids padded on the right, int64 [n, length].

        ``image_tokens`` [n, queries, Q-Former width]. States of padding mean nothing.
        """
        return self.model.decoder(input_ids, None, None, image_tokens, adapters)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        image_tokens: Tensor | None = None,
        adapters: nn.ModuleDict | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Predict the next token of each position, or of the last ``logits_to_keep`` (0: all).

        ``input_ids`` [n, length], ``attention_mask`` [n, past + length], ``image_tokens`` [n, queries, width].
        """
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if attention_mask is None:
            past = past_key_values.get_seq_length() if past_key_values is not None else 0
            attention_mask = torch.ones(
                input_ids.shape[0], past + input_ids.shape[1], dtype=torch.long, device=input_ids.device
            )
        hidden = self.model.decoder(input_ids, attention_mask, past_key_values, image_tokens, adapters)
        logits = self.lm_head(hidden[:, -logits_to_keep:])
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)
