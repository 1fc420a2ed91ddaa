"""Initialising a BLIP2-Adapter's parts from local weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import Blip2QFormerConfig, Blip2QFormerModel, OPTConfig

from models.blip2.config import Blip2Config
from models.blip2.language import decoder_class, decoder_config
from models.blip2.model import Blip2Adapter
from models.blip2.vision import FAMILIES, STOCK
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
from models.common.released import decoder_shape, language_description, read_description
from models.common.weights import Values, read_folder

_KEY = "model.initialise_from."
#: `model_type` in the config.json of folders that hold a vision transformer of a family.
_VISION_TYPES = {
    "clip": ("clip", "clip_vision_model"),
    "siglip": ("siglip", "siglip_vision_model"),
    "eva": ("blip-2", "blip_2_vision_model"),
}
#: Settings of a vision transformer and of a Q-Former that must agree.
_TRANSFORMER = ("hidden_act", "layer_norm_eps", "num_attention_heads", "num_hidden_layers")
#: Settings of OPT that must agree.
_OPT = (
    "activation_function",
    "do_layer_norm_before",
    "enable_bias",
    "num_attention_heads",
    "num_hidden_layers",
    "tie_word_embeddings",
)
#: Settings of any decoder that may differ from those that its weights were trained with.
_NOT_OF_WEIGHTS = {"initializer_range"}


def stored_values(model: Blip2Adapter, config: Blip2Config, initial: Mapping[str, Values]) -> dict[str, Values]:
    """The values of the parts that ``config.initialise_from`` gives a folder for, by the model's names.

    ``model`` may be on the meta device; ``initial`` has the random values of each of its parameters. Only headers of
    files are read. Raises UserError.
    """
    folders = config.initialise_from
    values: dict[str, Values] = {}
    if folders.vision is not None:
        values |= _vision(model, config, folders.vision)
    if folders.qformer is not None:
        values |= _qformer(model, config, folders.qformer, initial)
    if folders.language is not None:
        values |= _language(model, config, folders.language, initial)
    if folders.projection is not None:
        key = f"{_KEY}projection"
        stored = read_folder(folders.projection, key)
        named = {name.removeprefix("language_projection."): one for name, one in stored.items()}
        values |= fit(model.projection, "projection.", named, folders.projection, key)
    return values


def _vision(model: Blip2Adapter, config: Blip2Config, folder: str) -> dict[str, Values]:
    key, family, vision = f"{_KEY}vision", config.vision.family, model.vision
    described = read_description(folder, key)
    if (held := described.get("model_type")) not in _VISION_TYPES[family]:
        other = next((name for name, types in _VISION_TYPES.items() if held in types), None)
        hint = f"set model.vision.family={other}" if other else "give another folder"
        raise UserError(f"{key}: {folder} holds a model of type {held!r}, not of family {family!r}; {hint}")
    theirs = stored_config(FAMILIES[family][1], described.get("vision_config") or described, folder, key)
    check_settings(theirs, vision.config, _TRANSFORMER, folder, key)
    stored = inner(read_folder(folder, key), "vision_model.")
    named = named_as(STOCK[family], vision.config, stored)
    name = "embeddings.position_embedding" + ("" if family == "eva" else ".weight")
    if name in named:
        named[name] = resized_positions(named[name], config.vision.patches, class_token=family != "siglip")
    return fit(vision, "vision.", named, folder, key)


def _qformer(model: Blip2Adapter, config: Blip2Config, folder: str, initial: Mapping[str, Values]) -> dict[str, Values]:
    key, qformer = f"{_KEY}qformer", model.qformer
    described = read_description(folder, key)
    if (held := described.get("model_type")) not in ("blip-2", "blip_2_qformer"):
        raise UserError(f"{key}: {folder} holds a model of type {held!r}; give a Q-Former or a BLIP-2")
    theirs = stored_config(Blip2QFormerConfig, described.get("qformer_config") or described, folder, key)
    settings = (*_TRANSFORMER, "cross_attention_frequency")
    check_settings(theirs, qformer.body.config, settings, folder, key)
    stored = read_folder(folder, key)
    named = named_as(Blip2QFormerModel, qformer.body.config, inner(stored, "qformer."))
    # A released BLIP-2 that writes captions has no feed-forward layers for the Q-Former's own texts.
    values = fit(qformer.body, "qformer.body.", named, folder, key, optional=_is_of_text)
    if "query_tokens" in stored:
        values |= fit(qformer.queries, "qformer.queries.", {"tokens": stored["query_tokens"]}, folder, key)
    if config.initialise_from.qformer_embeddings:
        text, prefix = qformer.text, "qformer.text."
        embeddings = {
            f"{ours}.weight": fitted_rows(stored[name], initial[f"{prefix}{ours}.weight"], take=True)
            for ours, name in (
                ("words", "embeddings.word_embeddings.weight"),
                ("positions", "embeddings.position_embeddings.weight"),
            )
            if name in stored
        }
        values |= fit(text, prefix, embeddings, folder, f"{_KEY}qformer_embeddings")
    return values


def _is_of_text(name: str) -> bool:
    return ".intermediate." in name or (".output." in name and "attention." not in name)


def _language(
    model: Blip2Adapter, config: Blip2Config, folder: str, initial: Mapping[str, Values]
) -> dict[str, Values]:
    key, language = f"{_KEY}language", model.language
    described = language_description(folder, key)
    family = config.language.model_type
    if (held := described.get("model_type")) != family:
        raise UserError(f"{key}: {folder} holds a model of type {held!r}; this model's language model is {family!r}")
    if config.language.shape is None:
        opt = stored_config(OPTConfig, described, folder, key)
        check_settings(opt, language.config, _OPT, folder, key)
    else:
        theirs = decoder_config(decoder_shape(described), f"{key}: {folder}")
        ours = decoder_config(config.language.shape, "model.language.shape")
        settings = sorted(decoder_shape(ours.to_dict()).keys() - _NOT_OF_WEIGHTS)
        check_settings(theirs, ours, settings, folder, key)
    stored = inner(read_folder(folder, key), "language_model.")
    named = named_as(decoder_class(language.config), language.config, stored)
    for name in _per_id(language):
        if name in named:
            named[name] = fitted_rows(named[name], initial[f"language.{name}"], config.initialise_from.embeddings)
    return fit(language, "language.", named, folder, key)


def _per_id(language: Any) -> list[str]:
    """Names of the parameters that have a row per id."""
    layers = [language.get_input_embeddings(), language.get_output_embeddings()]
    weights = {id(weight) for layer in layers for weight in layer.parameters()}
    return [name for name, weight in language.named_parameters() if id(weight) in weights]
