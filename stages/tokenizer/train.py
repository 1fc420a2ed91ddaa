"""Trains byte-level BPE (Radford et al. 2019) to an exact vocabulary size, reproducibly to the byte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.base.artifact import canonical_json
from stages.base.contract import UserError
from stages.tokenizer.config import BOS, EOS, PAD, TokenizerConfig
from stages.tokenizer.counting import byte_level, count_words, iter_counts

_WORDS_AT_ONCE = 1000
_LINES_AT_ONCE = 10_000


def train(config: TokenizerConfig, lines: Iterable[str]) -> str:
    """Contents of `tokenizer.json` trained on lines of text: :func:`learn` of their words."""
    rest = iter(lines)
    return learn(config, count_words(iter(lambda: list(islice(rest, _LINES_AT_ONCE)), [])))


def learn(config: TokenizerConfig, words: pa.Table) -> str:
    """Contents of `tokenizer.json`, from words and counts (`counting.SCHEMA`).

    The merges are those that Hugging Face's `train_from_iterator` learns from the counted text. Raises UserError naming
    the reachable size if the text has too few distinct words, unless `allow_smaller` is set.
    """
    tokenizer = Tokenizer(models.BPE())
    # The library only trains from text, so it gets each word as often as it was counted, to be split at spaces (a tenth
    # of the work of the byte-level pattern). The byte-level alphabet contains no space.
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=config.added_tokens(),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_repeated(words), trainer)
    tokenizer.pre_tokenizer = byte_level()
    tokenizer.decoder = decoders.ByteLevel()
    reached = tokenizer.get_vocab_size()
    if reached > config.vocabulary:
        raise RuntimeError(f"tokenizers made {reached} ids, more than the requested {config.vocabulary}")
    if reached < config.vocabulary and not config.allow_smaller:
        raise UserError(
            f"tokenizer.vocabulary={config.vocabulary} is out of reach: the kept captions and tokenizer.text allow "
            f"{reached}; set tokenizer.vocabulary={reached} or less, add text, or tokenizer.allow_smaller=true"
        )
    content = json.loads(tokenizer.to_str())
    control = set(config.control_tokens())
    for token in content["added_tokens"]:
        # Special tokens are never encoded from text nor shown when decoded: true of control tokens, not of locations.
        token["special"] = token["content"] in control
    return canonical_json(content) + "\n"


def _repeated(words: pa.Table) -> Iterator[str]:
    """Each word as often as it was counted, separated by spaces, at most some thousands at a time."""
    chunk: list[str] = []
    size = 0
    for word, count in iter_counts(words):
        if len(word) < 2:
            continue  # nothing to merge, and every byte is in the vocabulary anyway
        if count >= _WORDS_AT_ONCE:
            many = (word + " ") * _WORDS_AT_ONCE
            for _ in range(count // _WORDS_AT_ONCE):
                yield many
            count %= _WORDS_AT_ONCE
        chunk.append((word + " ") * count)
        size += count
        if size >= _WORDS_AT_ONCE:
            yield "".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield "".join(chunk)


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
