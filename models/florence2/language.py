"""The encoder-decoder of Florence-2: mBART's, which is BART with the norms before the blocks."""

from __future__ import annotations

from transformers import MBartConfig, MBartForConditionalGeneration

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
    """mBART unchanged, under the name that every architecture has for its language model."""
