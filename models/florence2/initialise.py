"""Initialising a Florence-2's parts from local weights."""

from __future__ import annotations

from transformers import MBartConfig, MBartForConditionalGeneration, ViTConfig, ViTModel

from models.common.position_embeddings import resize_positions
from models.common.pretrained import fit_rows, load_part, read_config
from models.florence2.config import Florence2Config
from models.florence2.model import Florence2

_POSITIONS = "embeddings.position_embeddings"
_EMBEDDINGS = (
    *(f"model.{part}.weight" for part in ("shared", "encoder.embed_tokens", "decoder.embed_tokens")),
    "lm_head.weight",
    "final_logits_bias",
)


def start_from(model: Florence2, config: Florence2Config) -> None:
    """Replace the weights of each part that ``config.initialise_from`` gives a folder for. Raises UserError."""
    folders = config.initialise_from
    if folders.vision is not None:
        key = "model.initialise_from.vision"
        theirs = read_config(ViTConfig, folders.vision, key)
        shape = ViTConfig(**{**model.vision.config.to_dict(), "image_size": theirs.image_size})
        weights = load_part(ViTModel, folders.vision, shape, key, add_pooling_layer=False)
        weights[_POSITIONS] = resize_positions(weights[_POSITIONS][0], config.vision.patches)[None]
        model.vision.load_state_dict(weights)
    if folders.language is not None:
        key = "model.initialise_from.language"
        language = model.language
        mbart = read_config(MBartConfig, folders.language, key)
        ids = {"vocab_size": mbart.vocab_size, "pad_token_id": mbart.pad_token_id}
        language_shape = MBartConfig(**{**language.config.to_dict(), **ids})
        weights = load_part(MBartForConditionalGeneration, folders.language, language_shape, key)
        fit_rows(weights, language.state_dict(), _EMBEDDINGS, folders.embeddings)
        language.load_state_dict(weights)
