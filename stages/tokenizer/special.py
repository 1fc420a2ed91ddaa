"""Which ids of a tokenizer pad, begin and end a text, read from its files alone: no package is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base.contract import UserError

#: Files of a `transformers` folder that can decide an id; its weights cannot.
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
#: Vocabularies of SentencePiece, whatever they are called.
_PATTERNS = ("*.model", "*.spm")

#: Role -> our own token for it, where a folder does not say.
OURS = {"pad": "<pad>", "bos": "<s>", "eos": "</s>"}


@dataclass(frozen=True)
class SpecialIds:
    """Ids of a tokenizer's control tokens; the defaults are those of every tokenizer trained here."""

    pad: int = 0
    """Fills a row up to the batch's length; always masked."""
    bos: int = 1
    """Begins what a decoder writes."""
    eos: int = 2
    """Ends a text."""

    def models(self) -> dict[str, int]:
        """As `models.registry.build` takes them."""
        return {"pad_id": self.pad, "bos_id": self.bos, "eos_id": self.eos}


def tokenizer_files(folder: str | None) -> list[str]:
    """The files of a folder that make its tokenizer, in name order; the folder itself where there are none of them."""
    if folder is None:
        return []
    root = Path(folder)
    names = {name for name in _FILES if (root / name).is_file()}
    names |= {path.name for pattern in _PATTERNS for path in root.glob(pattern) if path.is_file()}
    return [str(root / name) for name in sorted(names)] or [folder]


def token_ids(content: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id of a parsed `tokenizer.json`, whichever kind of model it holds, added tokens included."""
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pieces with their scores, in id order
        vocabulary = {piece[0]: number for number, piece in enumerate(vocabulary)}
    added = {token["content"]: int(token["id"]) for token in content.get("added_tokens") or []}
    return {**vocabulary, **added}


def unknown_token(content: Mapping[str, Any]) -> str | None:
    """What a parsed `tokenizer.json` writes where it has no token; None where it has no such id."""
    model = content["model"]
    if isinstance(model.get("vocab"), list):
        number = model.get("unk_id")
        return None if number is None else str(model["vocab"][number][0])
    return model.get("unk_token") or None


def named_tokens(folder: Path) -> dict[str, str]:
    """Role (pad, bos, eos) -> token, as `tokenizer_config.json` or else `special_tokens_map.json` says."""
    named: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = _read(folder / name)
        for role in OURS:
            token = settings.get(f"{role}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str) and token:
                named.setdefault(role, token)
    return named


def special_ids(folder: Path, ids: Mapping[str, int]) -> SpecialIds:
    """The control tokens of a folder whose `tokenizer.json` holds `ids`.

    A tokenizer without a bos begins with its eos, one without a pad pads with its eos (padding is masked). Raises
    UserError where there is no eos, or where one is named that has no id.
    """
    named = named_tokens(folder)
    for role, token in named.items():
        if token not in ids:
            raise UserError(
                f"{folder}: its {role}_token {token!r} has no id in tokenizer.json; mend tokenizer_config.json"
            )
    found = {role: ids.get(named.get(role, OURS[role])) for role in OURS}
    eos = found["eos"]
    if eos is None:
        raise UserError(
            f"{folder}: this tokenizer has no eos token, so nothing could end a text; "
            'name one of its tokens as "eos_token" in tokenizer_config.json'
        )
    pad, bos = (eos if found[role] is None else int(found[role] or 0) for role in ("pad", "bos"))
    return SpecialIds(pad, bos, eos)


def read_special(folder: str | Path) -> SpecialIds:
    """The control tokens of a folder with a `tokenizer.json`. Raises UserError."""
    return special_ids(Path(folder), token_ids(tokenizer_json(Path(folder))))


def tokenizer_json(folder: Path) -> dict[str, Any]:
    """The parsed `tokenizer.json` of a folder. Raises UserError where there is none, or it is broken."""
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
        raise UserError(f"{file}: not JSON ({error}); write it anew") from None
    return content if isinstance(content, dict) else {}
