"""Saved models as models of `transformers`' own classes, where there is one of their shape; ours is then not needed."""

from __future__ import annotations

import json
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from models.common.config import ModelConfig
from models.common.errors import UserError
from models.registry import construct_saved, saved_config, spec


def check_stock_class(config: ModelConfig) -> None:
    """Raise UserError for an architecture that no class of `transformers` has the shape of."""
    if spec(config.architecture).stock is None:
        raise UserError(
            f"model {config.name}: transformers has no class of architecture {config.architecture!r}; export it with "
            "--format pairmill, and open it with `import models.auto` and AutoModel.from_pretrained"
        )


def save_stock(saved: str | Path, folder: str | Path, image_token: int) -> dict[str, Any]:
    """Write a saved model as one of a class of `transformers`, tensor by tensor; returns its config.json.

    ``image_token`` is the id that stands for each of an image's tokens in prompts there, of no other use in the
    tokenizer. Writes config.json and the weights, in the dtype that they have, into an existing folder. Raises
    UserError for a model that none of these classes has the shape of.
    """
    import torch

    from models.common.saving import write_model

    config = saved_config(saved)
    check_stock_class(config)
    model, values = construct_saved(saved)
    stock, theirs = resolve_name(str(spec(config.architecture).stock))(model, values, image_token)
    stored = json.loads(Path(saved, "config.json").read_text(encoding="utf-8"))
    precision = torch.bfloat16 if stored.get("dtype") == "bfloat16" else torch.float32
    write_model(stock, theirs, Path(folder), precision)
    described: dict[str, Any] = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    return described
