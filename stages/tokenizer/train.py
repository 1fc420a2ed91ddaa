"""Training byte-level BPE (Radford et al. 2019) to an exact number of ids, with equal bytes every time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.artifact import canonical_json
from stages.contract import UserError
from stages.tokenizer.config import BOS, EOS, PAD, TokenizerConfig

_LINES_AT_ONCE = 1000


def train(config: TokenizerConfig, lines: Iterable[str]) -> str:
    """Contents of `tokenizer.json`.

    Raises UserError naming the reachable size when the text has too few distinct words, unless smaller is allowed.
    """
    tokenizer = Tokenizer(models.BPE())
    # No normalisation and no added space: decoding gives back exactly what was encoded.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=config.added_tokens(),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_lists(lines), trainer)
    reached = tokenizer.get_vocab_size()
    if reached < config.vocabulary and not config.allow_smaller:
        raise UserError(
            f"tokenizer.vocabulary={config.vocabulary} is out of reach: the kept captions and tokenizer.text give "
            f"{reached}; set tokenizer.vocabulary={reached} or less, add text, or tokenizer.allow_smaller=true"
        )
    content = json.loads(tokenizer.to_str())
    control = set(config.control_tokens())
    for token in content["added_tokens"]:
        # What is special is never read from text and never shown: true of control tokens, not of locations.
        token["special"] = token["content"] in control
    return canonical_json(content) + "\n"


def _lists(lines: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(lines)
    while some := list(islice(rest, _LINES_AT_ONCE)):
        yield some


def write(config: TokenizerConfig, content: str, folder: Path) -> None:
    """Write `tokenizer.json` and the `tokenizer_config.json` that `transformers.AutoTokenizer` needs beside it."""
    (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "bos_token": BOS,
        "eos_token": EOS,
        "additional_special_tokens": config.special_tokens,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
    text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
