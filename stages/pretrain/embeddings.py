"""Checks that a model's embeddings, new or loaded, match the tokenizer, before any worker starts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from models import registry
from models.common.config import ModelConfig
from models.common.released import language_description
from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.tokenizer.special import token_ids, tokenizer_json
from stages.train.job import check_vocabulary

log = logging.getLogger(__name__)

_KEY = "model.initialise_from.language"


def check_embeddings(model: ModelConfig, tokenizer: Artifact) -> None:
    """Raise UserError where an id would have no embedding, or one that was learnt for another token.

    Ids of tokens added to a tokenizer from a folder (task, location and pad tokens) may exceed the rows of the weights
    a language model starts from: those rows start at random.
    """
    content: dict[str, Any] = tokenizer.read_json("tokenizer.json")
    ours = token_ids(content)
    check_vocabulary(model.vocabulary, max(ours.values()) + 1)
    folder = model.initialise_from.language
    if folder is None:
        return
    rows = _rows(Path(folder), model)
    if not model.initialise_from.embeddings:
        return
    other = "or set model.initialise_from.embeddings=false to start them at random"
    added = {token["content"] for token in content.get("added_tokens") or []}
    most = max((number for token, number in ours.items() if token not in added), default=-1) + 1
    if most > rows:
        raise UserError(
            f"tokenizer: {most} ids besides added tokens, but {_KEY} has embeddings for {rows} (vocab_size in its "
            f"config.json): set tokenizer.folder={folder} to use its own tokenizer, {other}"
        )
    theirs = _tokens(Path(folder))
    if theirs is None:
        log.warning("%s holds no tokenizer: cannot check that its embeddings match our tokenizer's ids", _KEY)
        return
    differing = sum(ours.get(token) != number for token, number in theirs.items())
    if differing:
        raise UserError(
            f"{_KEY}: {differing} of the {len(theirs)} tokens of its tokenizer have another id in ours, so its "
            f"embeddings would mean other words: set tokenizer.folder={folder} to use its own tokenizer, {other}"
        )


def check_start(model: ModelConfig) -> None:
    """Raise UserError if the language model is to start from a folder without one of the architecture's family."""
    if model.initialise_from.language is not None:
        _rows(Path(model.initialise_from.language), model)


def _tokens(folder: Path) -> dict[str, int] | None:
    """Token -> id of the tokenizer beside a model's weights, or None where there is none."""
    if (folder / "tokenizer.json").is_file():
        return token_ids(tokenizer_json(folder))
    if not (folder / "vocab.json").is_file():
        return None
    files = [folder / name for name in ("vocab.json", "added_tokens.json") if (folder / name).is_file()]
    try:
        return {token: int(n) for file in files for token, n in json.loads(file.read_text(encoding="utf-8")).items()}
    except ValueError as error:
        raise UserError(f"{_KEY}: {folder}: its vocab.json cannot be read ({error}); get it again") from None


def _rows(folder: Path, model: ModelConfig) -> int:
    """Rows of the embeddings in a `transformers` folder. Raises UserError for another family than the model's."""
    of_config = registry.spec(model.architecture).language_model
    if of_config is None:
        raise UserError(f"{_KEY}: architecture {model.architecture!r} starts from no language model; set it to null")
    family, described = of_config(model), language_description(folder, _KEY)
    if (held := described.get("model_type")) != family:
        raise UserError(f"{_KEY}: {folder} holds a model of type {held!r}; this architecture starts from {family!r}")
    return int(described.get("vocab_size") or 0)
