"""Initialising a Florence-2's parts from local weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F
from transformers import MBartConfig, MBartForConditionalGeneration, ViTConfig, ViTModel

from models.common.checkpoints import (
    check_settings,
    fit,
    fitted_rows,
    inner,
    named_as,
    resized_positions,
    stored_config,
)
from models.common.errors import UserError
from models.common.released import read_description
from models.common.weights import TransformedValues, Values, read_folder
from models.florence2.config import Florence2Config
from models.florence2.model import Florence2

_VISION, _LANGUAGE = "model.initialise_from.vision", "model.initialise_from.language"
_POSITIONS = "embeddings.position_embeddings"
_BIAS = "final_logits_bias"


def stored_values(model: Florence2, config: Florence2Config, initial: Mapping[str, Values]) -> dict[str, Values]:
    """The values of the parts that ``config.initialise_from`` gives a folder for, by the model's names.

    ``model`` may be on the meta device; ``initial`` has the random values of each of its parameters. Only headers of
    files are read. Raises UserError.
    """
    folders = config.initialise_from
    values: dict[str, Values] = {}
    if folders.vision is not None:
        values |= _vision(model, config, folders.vision)
    if folders.language is not None:
        values |= _language(model, config, folders.language, initial)
    return values


def _vision(model: Florence2, config: Florence2Config, folder: str) -> dict[str, Values]:
    described = read_description(folder, _VISION)
    if (held := described.get("model_type")) not in ("vit", "vit_mae"):
        raise UserError(f"{_VISION}: {folder} holds a model of type {held!r}; give a ViT or a ViT-MAE")
    vit = model.vision.config
    theirs = stored_config(ViTConfig, described, folder, _VISION)
    settings = ("hidden_act", "layer_norm_eps", "num_attention_heads", "num_hidden_layers", "qkv_bias")
    check_settings(theirs, vit, settings, folder, _VISION)
    named = named_as(ViTModel, vit, inner(read_folder(folder, _VISION), "vit."))
    if _POSITIONS in named:
        named[_POSITIONS] = resized_positions(named[_POSITIONS], config.vision.patches)
    return fit(model.vision, "vision.", named, folder, _VISION)


def _language(
    model: Florence2, config: Florence2Config, folder: str, initial: Mapping[str, Values]
) -> dict[str, Values]:
    described = read_description(folder, _LANGUAGE)
    if (held := described.get("model_type")) != "mbart":
        raise UserError(f"{_LANGUAGE}: {folder} holds a model of type {held!r}; give an mBART")
    language, take = model.language, config.initialise_from.embeddings
    theirs = stored_config(MBartConfig, described, folder, _LANGUAGE)
    settings = (
        "activation_function",
        "encoder_layers",
        "decoder_layers",
        "encoder_attention_heads",
        "decoder_attention_heads",
        "scale_embedding",
        "tie_word_embeddings",
    )
    check_settings(theirs, language.config, settings, folder, _LANGUAGE)
    named = named_as(MBartForConditionalGeneration, language.config, read_folder(folder, _LANGUAGE))
    shared = next((name for name, weight in language.named_parameters() if weight is language.model.shared.weight), "")
    # Of the tied embeddings, a checkpoint may hold any one name.
    tied = ("model.shared.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
    embeddings = next((named[name] for name in (*tied, "lm_head.weight") if name in named), None)
    if embeddings is not None:
        named[shared] = fitted_rows(embeddings, initial[f"language.{shared}"], take)
    ids = config.vocabulary
    bias = named.get(_BIAS)
    if bias is not None and len(bias.shape) == 2:

        def resize(values: Tensor) -> Tensor:
            kept = values[:, : ids if take else 0]
            return F.pad(kept, (0, ids - kept.shape[1]))

        named[_BIAS] = TransformedValues(bias, resize, (1, ids))
    return fit(language, "language.", named, folder, _LANGUAGE, optional=lambda name: name == _BIAS)
