"""Whether the embeddings a model has, or starts from, go with the tokenizer: told before any worker starts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from models.blip2.config import Blip2Config
from models.florence2.config import Florence2Config
from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.tokenizer.special import token_ids, tokenizer_json
from stages.train.job import check_vocabulary

log = logging.getLogger(__name__)

_KEY = "model.initialise_from.language"
#: Architecture -> the kind of language model it can start from.
_KINDS = {"blip2": "opt", "florence2": "mbart"}


def check_embeddings(model: Blip2Config | Florence2Config, tokenizer: Artifact) -> None:
    """Raise UserError where an id would have no embedding, or one that was learnt for another token.

    Tokens that were added to a brought tokenizer (task, location and pad tokens) may lie beyond the rows of the weights
    a language model starts from: these rows start at random.
    """
    content: dict[str, Any] = tokenizer.read_json("tokenizer.json")
    ours = token_ids(content)
    check_vocabulary(model.vocabulary, max(ours.values()) + 1)
    folder = model.initialise_from.language
    if folder is None:
        return
    rows = _rows(Path(folder), _KINDS[model.architecture])
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
        log.warning("%s holds no tokenizer: whether its embeddings mean our tokenizer's ids is not known", _KEY)
        return
    differing = sum(ours.get(token) != number for token, number in theirs.items())
    if differing:
        raise UserError(
            f"{_KEY}: {differing} of the {len(theirs)} tokens of its tokenizer have another id in ours, so its "
            f"embeddings would mean other words: set tokenizer.folder={folder} to use its own tokenizer, {other}"
        )


def check_start(model: Blip2Config | Florence2Config) -> None:
    """Raise UserError where the folder a language model is to start from holds none of this architecture's kind."""
    if model.initialise_from.language is not None:
        _rows(Path(model.initialise_from.language), _KINDS[model.architecture])


def _tokens(folder: Path) -> dict[str, int] | None:
    """Token -> id of the tokenizer beside a model's weights, as far as a file says it plainly."""
    if (folder / "tokenizer.json").is_file():
        return token_ids(tokenizer_json(folder))
    if not (folder / "vocab.json").is_file():
        return None
    files = [folder / name for name in ("vocab.json", "added_tokens.json") if (folder / name).is_file()]
    try:
        return {token: int(n) for file in files for token, n in json.loads(file.read_text(encoding="utf-8")).items()}
    except ValueError as error:
        raise UserError(f"{_KEY}: {folder}: its vocab.json cannot be read ({error}); get it again") from None


def _rows(folder: Path, kind: str) -> int:
    """Rows of the embeddings in a `transformers` folder."""
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{_KEY}: {folder} is not a folder with a config.json; give a local one") from None
    except ValueError as error:
        raise UserError(f"{_KEY}: {folder / 'config.json'}: not JSON ({error}); get it again") from None
    if described.get("model_type") != kind:
        found = described.get("model_type")
        raise UserError(f"{_KEY}: {folder} holds a model of type {found!r}; this architecture starts from {kind!r}")
    return int(described.get("vocab_size") or 0)
