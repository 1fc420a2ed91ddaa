"""Finds the ids that pad, begin and end a text, from a tokenizer's files alone: no tokenizer package is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base.contract import UserError

#: Files of a `transformers` folder that can affect ids; its weights cannot.
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "config.json",
)
#: SentencePiece vocabularies under any name.
_PATTERNS = ("*.model", "*.spm")

#: Role -> token, where a folder names none.
DEFAULT_TOKENS = {"pad": "<pad>", "bos": "<s>", "eos": "</s>"}


@dataclass(frozen=True)
class SpecialIds:
    """Ids of a tokenizer's control tokens; the defaults apply to every tokenizer trained here."""

    pad: int = 0
    """Pads a row to the batch's length; always masked."""
    bos: int = 1
    """Begins a decoder's output."""
    eos: int = 2
    """Ends a text."""

    def models(self) -> dict[str, int]:
        """As `models.registry.build` takes them."""
        return {"pad_id": self.pad, "bos_id": self.bos, "eos_id": self.eos}


def tokenizer_files(folder: str | None) -> list[str]:
    """The files of a folder that define its tokenizer, in name order; the folder itself if there are none."""
    if folder is None:
        return []
    root = Path(folder)
    names = {name for name in _FILES if (root / name).is_file()}
    names |= {path.name for pattern in _PATTERNS for path in root.glob(pattern) if path.is_file()}
    return [str(root / name) for name in sorted(names)] or [folder]


def token_ids(content: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id of a parsed `tokenizer.json` with any kind of model, added tokens included."""
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pieces with their scores, in id order
        vocabulary = {piece[0]: number for number, piece in enumerate(vocabulary)}
    added = {token["content"]: int(token["id"]) for token in content.get("added_tokens") or []}
    return {**vocabulary, **added}


def unknown_token(content: Mapping[str, Any]) -> str | None:
    """The unknown token of a parsed `tokenizer.json`; None if it has none."""
    model = content["model"]
    if isinstance(model.get("vocab"), list):
        number = model.get("unk_id")
        return None if number is None else str(model["vocab"][number][0])
    return model.get("unk_token") or None


def named_tokens(folder: Path) -> dict[str, str]:
    """Role (pad, bos, eos) -> token, as named in `tokenizer_config.json` or else in `special_tokens_map.json`."""
    named: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = _read(folder / name)
        for role in DEFAULT_TOKENS:
            token = settings.get(f"{role}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str) and token:
                named.setdefault(role, token)
    return named


def special_ids(folder: Path, ids: Mapping[str, int]) -> SpecialIds:
    """The control tokens of a folder whose `tokenizer.json` holds `ids`.

    The eos also serves as bos or pad of a tokenizer that has none (padding is masked). Raises UserError if there is no
    eos, or if a named token has no id.
    """
    named = named_tokens(folder)
    for role, token in named.items():
        if token not in ids:
            raise UserError(
                f"{folder}: its {role}_token {token!r} has no id in tokenizer.json; correct tokenizer_config.json"
            )
    numbers = {role: ids.get(named.get(role, DEFAULT_TOKENS[role])) for role in DEFAULT_TOKENS}
    eos = numbers["eos"]
    if eos is None:
        raise UserError(
            f"{folder}: this tokenizer has no eos token, so a text could not end; "
            'name one of its tokens as "eos_token" in tokenizer_config.json'
        )
    pad, bos = (eos if numbers[role] is None else int(numbers[role] or 0) for role in ("pad", "bos"))
    return SpecialIds(pad, bos, eos)


def read_special(folder: str | Path) -> SpecialIds:
    """The control tokens of a folder with a `tokenizer.json`. Raises UserError."""
    return special_ids(Path(folder), token_ids(tokenizer_json(Path(folder))))


def tokenizer_json(folder: Path) -> dict[str, Any]:
    """The parsed `tokenizer.json` of a folder. Raises UserError if it is missing or invalid."""
    content = _read(folder / "tokenizer.json")
    if not isinstance(content.get("model"), dict) or "vocab" not in content["model"]:
        raise UserError(f"{folder} holds no tokenizer.json with a vocabulary: not a tokenizer")
    return content


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, NotADirectoryError) as error:
        raise UserError(f"{file}: not JSON ({error}); save the tokenizer again") from None
    return content if isinstance(content, dict) else {}
