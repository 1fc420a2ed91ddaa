"""A saved BLIP2-Adapter with `bridge=prefix` as the BLIP-2 of `transformers`, without its weights in memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import Blip2ForConditionalGeneration

from models.blip2.export import exported_config, exported_names
from models.blip2.model import Blip2Adapter
from models.common.construction import by_first_name
from models.common.weights import Values


def stock_values(
    model: Blip2Adapter, values: Mapping[str, Values], image_token: int
) -> tuple[Blip2ForConditionalGeneration, dict[str, Values]]:
    """The stock model on the meta device and its values by name, from those of ours, which may be on `meta`, too.

    ``image_token``: see :func:`models.blip2.export.export`. Raises UserError for a model that no class of
    `transformers` has the shape of.
    """
    config = exported_config(model, image_token)
    with torch.device("meta"):
        whole = Blip2ForConditionalGeneration(config)
    first = {id(weight): name for name, weight in model.named_parameters()}
    # A tied weight has several names; its values are under the first.
    named = {name: first[id(weight)] for name, weight in model.named_parameters(remove_duplicate=False)}
    theirs = {new: values[named.get(name, name)] for name, new in exported_names(model).items()}
    return whole, by_first_name(whole, theirs)
