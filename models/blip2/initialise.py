"""Initialising a BLIP2-Adapter's parts from local weights."""

from __future__ import annotations

from transformers import Blip2QFormerModel, CLIPVisionConfig, CLIPVisionModel, OPTConfig, OPTForCausalLM

from models.blip2.config import Blip2Config
from models.blip2.model import Blip2Adapter
from models.common.errors import UserError
from models.common.position_embeddings import resize_positions
from models.common.pretrained import fit_rows, load_part, read_config

_POSITIONS = "embeddings.position_embedding.weight"
_EMBEDDINGS = ("model.decoder.embed_tokens.weight", "lm_head.weight")


def start_from(model: Blip2Adapter, config: Blip2Config) -> None:
    """Replace the weights of each part that ``config.initialise_from`` gives a folder for. Raises UserError."""
    folders = config.initialise_from
    if folders.vision is not None:
        key = "model.initialise_from.vision"
        theirs = read_config(CLIPVisionConfig, folders.vision, key)
        if theirs.hidden_act != "gelu":
            raise UserError(f"{key}: {folders.vision} was trained with {theirs.hidden_act}, this model has gelu")
        shape = CLIPVisionConfig(**{**model.vision.config.to_dict(), "image_size": theirs.image_size})
        weights = load_part(CLIPVisionModel, folders.vision, shape, key)
        weights[_POSITIONS] = resize_positions(weights[_POSITIONS], config.vision.patches)
        model.vision.load_state_dict(weights)
    if folders.qformer is not None:
        key = "model.initialise_from.qformer"
        body = model.qformer.body
        body.load_state_dict(load_part(Blip2QFormerModel, folders.qformer, body.config, key))
    if folders.language is not None:
        key = "model.initialise_from.language"
        language = model.language
        opt = read_config(OPTConfig, folders.language, key)
        ids = {"vocab_size": opt.vocab_size, "pad_token_id": opt.pad_token_id}
        language_shape = OPTConfig(**{**language.config.to_dict(), **ids})
        weights = load_part(OPTForCausalLM, folders.language, language_shape, key)
        fit_rows(weights, language.state_dict(), _EMBEDDINGS, folders.embeddings)
        language.load_state_dict(weights)
