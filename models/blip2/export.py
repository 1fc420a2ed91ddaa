"""A BLIP2-Adapter with `bridge=prefix` as the BLIP-2 of `transformers`, which opens without this code."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import transformers
from transformers import Blip2ForConditionalGeneration

from models.blip2.config import Blip2Config
from models.blip2.model import Blip2Adapter
from models.common.construction import by_first_name
from models.common.errors import UserError
from models.common.weights import Values

#: Our modules -> those of `Blip2ForConditionalGeneration`.
_NAMES = {
    "vision.": "vision_model.",
    "qformer.queries.tokens": "query_tokens",
    "qformer.body.": "qformer.",
    "projection.": "language_projection.",
    "language.": "language_model.",
}


def stock_values(
    model: Blip2Adapter, values: Mapping[str, Values], image_token: int
) -> tuple[Blip2ForConditionalGeneration, dict[str, Values]]:
    """The stock model on the meta device and its values by name, from those of ours, which may be on `meta`, too.

    The weights that only stage 1 uses are left out. ``image_token`` is the id that stands for each of an image's tokens
    in prompts there, of no other use in the tokenizer. Raises UserError for a model that no class of `transformers` has
    the shape of.
    """
    config = exported_config(model, image_token)
    with torch.device("meta"):
        whole = Blip2ForConditionalGeneration(config)
    first = {id(weight): name for name, weight in model.named_parameters()}
    # A tied weight has several names; its values are under the first.
    named = {name: first[id(weight)] for name, weight in model.named_parameters(remove_duplicate=False)}
    theirs = {new: values[named.get(name, name)] for name, new in exported_names(model).items()}
    return whole, by_first_name(whole, theirs)


def exported_config(model: Blip2Adapter, image_token: int) -> transformers.Blip2Config:
    """The config of the exported model. Raises UserError as :func:`stock_values` does."""
    shape = Blip2Config.model_validate(model.config.architecture)
    if shape.bridge != "prefix" or shape.vision.family != "eva":
        raise UserError(
            f"model {shape.name} has bridge={shape.bridge} and vision.family={shape.vision.family}: transformers has a "
            "class for bridge=prefix and vision.family=eva only; load this model with models.registry.load"
        )
    if not 0 <= image_token < shape.vocabulary:
        raise UserError(
            f"model {shape.name}: its tokenizer uses all of its {shape.vocabulary} ids, and transformers' class needs "
            f"one for <image>: train it with model.vocabulary of at least {image_token + 1}, or with <image> among "
            "tokenizer.special_tokens; or export it with --format pairmill"
        )
    qformer = {**model.qformer.body.config.to_dict(), "use_qformer_text_input": False}
    return transformers.Blip2Config(
        vision_config=model.vision.config.to_dict(),
        qformer_config=qformer,
        text_config=model.language.config.to_dict(),
        num_query_tokens=shape.qformer.queries,
        image_text_hidden_size=shape.heads.projection,
        image_token_index=image_token,
    )


def exported_names(model: Blip2Adapter) -> dict[str, str]:
    """Name of a weight here -> its name in a `Blip2ForConditionalGeneration`; without what that does not have."""
    text = {id(weight) for weight in model.named_parts()["qformer_text"].parameters()}
    of_text = {name for name, weight in model.named_parameters() if id(weight) in text}
    return {
        name: theirs + name.removeprefix(ours)
        for name in model.state_dict()
        if name not in of_text
        for ours, theirs in _NAMES.items()
        if name.startswith(ours)
    }
