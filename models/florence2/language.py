"""The encoder-decoder of Florence-2: mBART's, which is BART with the norms before the blocks."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers import MBartConfig, MBartForConditionalGeneration

from models.common.output_layer import OutputLayer
from models.florence2.config import Florence2Config


def mbart_config(config: Florence2Config, *, pad_id: int, bos_id: int, eos_id: int) -> MBartConfig:
    """The `transformers` config of the encoder-decoder."""
    language = config.language
    return MBartConfig(
        vocab_size=config.vocabulary,
        d_model=language.width,
        encoder_layers=language.encoder_layers,
        decoder_layers=language.decoder_layers,
        encoder_attention_heads=language.heads,
        decoder_attention_heads=language.heads,
        encoder_ffn_dim=language.mlp_width,
        decoder_ffn_dim=language.mlp_width,
        max_position_embeddings=language.positions,
        dropout=language.dropout,
        init_std=config.initialiser_range,
        pad_token_id=pad_id,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        decoder_start_token_id=bos_id,
        # Otherwise the last token allowed would be replaced by eos, and a beam scored for a token it does not hold.
        forced_eos_token_id=None,
    )


class LanguageModel(MBartForConditionalGeneration):
    """mBART by its weights and results, with passes for training that a GPU need not be waited for.

    `transformers`' own look at each padding mask to find out whether attention can do without. Here the caller knows.
    """

    def __init__(self, config: MBartConfig) -> None:
        super().__init__(config)
        self.lm_head = OutputLayer.of(self.lm_head)

    def encode(self, embedded: Tensor, mask: Tensor | None) -> Tensor:
        """Encoder states of embedded tokens, both [n, length, width]; ``mask`` [n, length], None for no padding."""
        encoder = self.get_encoder()
        states: Tensor = encoder(inputs_embeds=embedded, attention_mask=_for_keys(mask)).last_hidden_state
        return states

    def decode(self, ids: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        """What `lm_head` takes, [n, length, width], of decoder inputs padded on the right, int64 [n, length].

        ``states`` [n, source length, width] and ``mask`` as from `encode`. Attention among the inputs is causal and
        nothing more, for which SDPA has its fastest kernel: states of padding mean nothing. As `MBartDecoder.forward`
        without cache and layer drop.
        """
        decoder: Any = self.get_decoder()
        hidden = decoder.embed_tokens(ids)
        hidden = decoder.layernorm_embedding(hidden + decoder.embed_positions(ids))
        hidden = F.dropout(hidden, decoder.dropout, self.training)
        for layer in decoder.layers:
            hidden = layer(hidden, None, states, encoder_attention_mask=_for_keys(mask), use_cache=False)
        normed: Tensor = decoder.layer_norm(hidden)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., vocabulary] of the decoder's states [..., width]."""
        return self.lm_head(hidden, logits_bias=self.final_logits_bias)

    def summed_cross_entropy(self, hidden: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Summed over tokens, a float32 scalar; ``hidden`` [tokens, width], ``targets`` int64 [tokens]."""
        return self.lm_head(hidden, targets, label_smoothing=label_smoothing, logits_bias=self.final_logits_bias)


def _for_keys(mask: Tensor | None) -> Tensor | None:
    """bool [n, 1, 1, length]: the attention mask that a padding mask [n, length] stands for; None for none."""
    return None if mask is None else mask[:, None, None, :].bool()
