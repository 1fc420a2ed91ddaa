"""Imports a user's tokenizer from a local folder and appends the tokens that our models need."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from stages.base.artifact import canonical_json
from stages.base.contract import UserError
from stages.tokenizer.config import TokenizerConfig
from stages.tokenizer.special import DEFAULT_TOKENS, named_tokens, special_ids, unknown_token

log = logging.getLogger(__name__)

_KEY = "tokenizer.folder"


def write_imported(config: TokenizerConfig, out: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` of the tokenizer in `config.folder`.

    Its own ids do not change. Raises UserError if the folder does not exist or holds no tokenizer, if it has no eos
    token, or if the resulting number of ids differs from `config.vocabulary`.
    """
    folder = Path(config.folder or "")
    if not folder.is_dir():
        raise UserError(f"{_KEY}: no folder {folder}; put the tokenizer there or correct the path")
    tokenizer, named = _read(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    before = tokenizer.get_vocab(with_added_tokens=True)
    special_ids(folder, before)  # raises for a folder without eos
    named = _complete(named, before)
    _add(tokenizer, config, named)
    after = tokenizer.get_vocab(with_added_tokens=True)
    _check(folder, config, before, after)
    content = json.loads(tokenizer.to_str())
    control, written = {*named.values(), *config.special_tokens}, {*config.task_tokens, *_locations(config)}
    for token in content["added_tokens"]:
        # As in train.py: special tokens are never encoded from text nor shown when decoded, unlike location tokens.
        token["special"] = token["content"] in control or (token["special"] and token["content"] not in written)
    (out / "tokenizer.json").write_text(canonical_json(content) + "\n", encoding="utf-8")
    unknown = unknown_token(content)
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": token for role, token in named.items()},
        **({"unk_token": unknown} if unknown else {}),
        "additional_special_tokens": config.special_tokens,
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (out / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _read(folder: Path) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """The tokenizer, and those of its control tokens that the folder names, by role."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return _converted(folder)
    try:
        return tokenizers.Tokenizer.from_file(str(file)), named_tokens(folder)
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise UserError(f"{_KEY}: {file} cannot be read ({_first_line(error)}); save the tokenizer again") from None


def _converted(folder: Path) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    # Older folders hold vocab.json and merges.txt, or a SentencePiece model, which `transformers` can read.
    from transformers import AutoTokenizer

    try:
        loaded: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        tokenizer = loaded.backend_tokenizer
        if not isinstance(tokenizer, tokenizers.Tokenizer):
            raise ValueError(f"{type(loaded).__name__} has no fast form")
    except Exception as error:  # noqa: BLE001 - each converter raises its own errors, all about the folder
        why = _first_line(error)
        cause = "" if why.endswith(":") else f" ({why})"  # the lines after a colon are a list for developers
        raise UserError(
            f"{_KEY}: {folder} has no tokenizer.json, and transformers finds no other tokenizer in it that it can "
            f"convert{cause}; save one there with save_pretrained()"
        ) from None
    named = {role: getattr(loaded, f"{role}_token", None) for role in DEFAULT_TOKENS}
    return tokenizer, {role: str(token) for role, token in named.items() if token} | named_tokens(folder)


def _complete(named: dict[str, str], ids: dict[str, int]) -> dict[str, str]:
    """pad, bos and eos of a tokenizer that names at least its eos, or has our `</s>`."""
    eos = named.get("eos", DEFAULT_TOKENS["eos"])
    bos = named.get("bos", DEFAULT_TOKENS["bos"] if DEFAULT_TOKENS["bos"] in ids else eos)
    pad = named.get("pad", DEFAULT_TOKENS["pad"])
    # The embedding of the pad id is not trained, so it must not also begin or end a text.
    return {"pad": DEFAULT_TOKENS["pad"] if pad in (bos, eos) else pad, "bos": bos, "eos": eos}


def _add(tokenizer: tokenizers.Tokenizer, config: TokenizerConfig, named: dict[str, str]) -> None:
    """Make the control tokens special, and append missing tokens in the documented order."""
    control = [named["eos"], named["bos"], named["pad"], *config.special_tokens]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    written = [*config.task_tokens, *_locations(config)]
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in written])


def _check(folder: Path, config: TokenizerConfig, before: dict[str, int], after: dict[str, int]) -> None:
    moved = sum(after.get(token) != number for token, number in before.items())
    shared = len(after) - len(set(after.values()))
    if moved or shared > len(before) - len(set(before.values())):
        raise UserError(
            f"{_KEY}: {folder} has gaps between its ids, so a new token would get an id that is in use; "
            "add the tokens you need with add_tokens(), save it again, and leave the config as it is"
        )
    reached = max(after.values()) + 1
    if config.vocabulary not in (0, reached):
        raise UserError(
            f"tokenizer.vocabulary={config.vocabulary}, but {_KEY} has {reached} ids including those added; "
            f"set tokenizer.vocabulary={reached}, or 0 to accept any number"
        )
    log.info("tokenizer.folder: %d ids, %d of them added", reached, len(after) - len(before))


def _locations(config: TokenizerConfig) -> list[str]:
    return [f"<loc_{number}>" for number in range(config.location_tokens)]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
