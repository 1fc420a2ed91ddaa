"""A tokenizer the user brings: taken from a local folder, with the tokens our models need behind its own."""

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
from stages.tokenizer.special import OURS, named_tokens, special_ids, unknown_token

log = logging.getLogger(__name__)

_KEY = "tokenizer.folder"


def write_given(config: TokenizerConfig, out: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` of the tokenizer in `config.folder`.

    No id it has changes. Raises UserError where the folder is none or holds no tokenizer, where nothing ends a text,
    or where the ids it comes to are not as many as `config.vocabulary` asks for.
    """
    folder = Path(config.folder or "")
    if not folder.is_dir():
        raise UserError(f"{_KEY}: no folder {folder}; put the tokenizer there or name the right one")
    tokenizer, named = _read(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    before = tokenizer.get_vocab(with_added_tokens=True)
    special_ids(folder, before)  # refuses a folder without eos
    named = _complete(named, before)
    _add(tokenizer, config, named)
    after = tokenizer.get_vocab(with_added_tokens=True)
    _check(folder, config, before, after)
    content = json.loads(tokenizer.to_str())
    control, written = {*named.values(), *config.special_tokens}, {*config.task_tokens, *_locations(config)}
    for token in content["added_tokens"]:
        # As in train.py: what is special is never read from text and never shown, which is wrong for locations.
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
    """The tokenizer, and its control tokens by role as far as the folder names any."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return _converted(folder)
    try:
        return tokenizers.Tokenizer.from_file(str(file)), named_tokens(folder)
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise UserError(f"{_KEY}: {file} cannot be read ({_first_line(error)}); save the tokenizer anew") from None


def _converted(folder: Path) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    # Older folders hold vocab.json and merges.txt, or a SentencePiece model, which `transformers` knows how to read.
    from transformers import AutoTokenizer

    try:
        loaded: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        tokenizer = loaded.backend_tokenizer
        if not isinstance(tokenizer, tokenizers.Tokenizer):
            raise ValueError(f"{type(loaded).__name__} has no fast form")
    except Exception as error:  # noqa: BLE001 - each converter fails in ways of its own, all of them the folder's
        why = _first_line(error)
        told = "" if why.endswith(":") else f" ({why})"  # what follows the colon is a list for developers
        raise UserError(
            f"{_KEY}: {folder} has no tokenizer.json, and transformers finds no other tokenizer in it that it can "
            f"convert{told}; save one there with save_pretrained()"
        ) from None
    named = {role: getattr(loaded, f"{role}_token", None) for role in OURS}
    return tokenizer, {role: str(token) for role, token in named.items() if token} | named_tokens(folder)


def _complete(named: dict[str, str], ids: dict[str, int]) -> dict[str, str]:
    """pad, bos and eos of a tokenizer that names at least its eos, or has our `</s>`."""
    eos = named.get("eos", OURS["eos"])
    bos = named.get("bos", OURS["bos"] if OURS["bos"] in ids else eos)
    pad = named.get("pad", OURS["pad"])
    # Embeddings do not learn the pad row, so it must not be one that begins or ends a text.
    return {"pad": OURS["pad"] if pad in (bos, eos) else pad, "bos": bos, "eos": eos}


def _add(tokenizer: tokenizers.Tokenizer, config: TokenizerConfig, named: dict[str, str]) -> None:
    """Make the control tokens special, and append what is missing in the order of the documentation."""
    control = [named["eos"], named["bos"], named["pad"], *config.special_tokens]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    written = [*config.task_tokens, *_locations(config)]
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in written])


def _check(folder: Path, config: TokenizerConfig, before: dict[str, int], after: dict[str, int]) -> None:
    moved = sum(after.get(token) != number for token, number in before.items())
    shared = len(after) - len(set(after.values()))
    if moved or shared > len(before) - len(set(before.values())):
        raise UserError(
            f"{_KEY}: {folder} leaves gaps between its ids, so a new token would take one that is in use; "
            "save it again with the tokens you need (add_tokens), then name them in the config as now"
        )
    reached = max(after.values()) + 1
    if config.vocabulary not in (0, reached):
        raise UserError(
            f"tokenizer.vocabulary={config.vocabulary}, but {_KEY} comes to {reached} ids with what was added; "
            f"set tokenizer.vocabulary={reached}, or 0 to take it as it is"
        )
    log.info("tokenizer.folder: %d ids, %d of them added", reached, len(after) - len(before))


def _locations(config: TokenizerConfig) -> list[str]:
    return [f"<loc_{number}>" for number in range(config.location_tokens)]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
