"""Reports how a tokenizer encodes each corpus, compared with other tokenizers: figures only, as JSON and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stages.tokenizer.config import BYTES, TokenizerConfig
from stages.tokenizer.corpus import Corpus
from stages.tokenizer.counting import WordCounter
from stages.tokenizer.load import LoadedTokenizer, load
from stages.tokenizer.measure import CorpusStatistics, TextBatch
from stages.tokenizer.pieces import PieceEncoder
from stages.tokenizer.scripts import ScriptDetector

OURS = "this tokenizer"


def report(config: TokenizerConfig, corpora: Sequence[Corpus], tokenizer: LoadedTokenizer) -> dict[str, Any]:
    """Contents of `report.json`: figures only, no text.

    Raises RuntimeError if a tokenizer trained here does not decode a text to what was encoded, UserError if a
    tokenizer to compare with cannot be read.
    """
    tokenizers = {OURS: tokenizer, **{name: load(other.folder) for name, other in config.compare.items()}}
    used = {name: np.zeros(each.vocabulary, dtype=bool) for name, each in tokenizers.items()}
    scripts = ScriptDetector()
    measured = {corpus.name: _measure(config, corpus, tokenizers, used, scripts) for corpus in corpora}
    failed = {
        name: {key: figures[key] for key in ("round_trip_failed", "unknown") if figures[key]}
        for name, figures in measured.items()
        if figures["round_trip_failed"] or figures["unknown"]
    }
    if failed and not config.brought:
        raise RuntimeError(f"the tokenizer does not decode texts to what was encoded: {failed}")
    added = len(config.added_tokens())
    ids = {name: {"vocabulary": len(flags), "ids_used": int(flags.sum())} for name, flags in used.items()}
    return {
        "vocabulary": tokenizer.vocabulary,
        "brought": config.brought,
        "special_tokens": len(config.control_tokens()),
        "task_tokens": len(config.task_tokens),
        "location_tokens": config.location_tokens,
        "merges": None if config.brought else tokenizer.vocabulary - added - BYTES,
        "ids_used": ids[OURS]["ids_used"],
        # Control, task and location tokens occur in no caption and are excluded from coverage.
        "coverage": ids[OURS]["ids_used"] / max(1, tokenizer.vocabulary - (0 if config.brought else added)),
        "compared": {name: each for name, each in ids.items() if name != OURS},
        "corpora": measured,
    }


def _measure(
    config: TokenizerConfig,
    corpus: Corpus,
    tokenizers: Mapping[str, LoadedTokenizer],
    used: Mapping[str, np.ndarray],
    scripts: ScriptDetector,
) -> dict[str, Any]:
    measured = {name: CorpusStatistics(used[name]) for name in tokenizers}
    encoders = {name: PieceEncoder(tokenizer) for name, tokenizer in tokenizers.items()}
    counter = WordCounter()
    for texts in corpus.batches(config.checked_captions):
        batch = TextBatch.of(texts, scripts)
        counter.add(batch.array)
        for name, tokenizer in tokenizers.items():
            measured[name].add(batch, encoders[name].encode(batch.array), tokenizer)
    words = counter.table()
    for name, tokenizer in tokenizers.items():
        measured[name].add_words(words, tokenizer)
    return {
        "private": corpus.private,
        "trained_on": not config.brought and (not corpus.private or config.include_private),
        **measured[OURS].figures(),
        "compared": {name: each.figures() for name, each in measured.items() if name != OURS},
    }


def page(report: Mapping[str, Any]) -> str:
    """Contents of `report.md`: the figures of `report.json` as tables."""
    kind = "brought from a folder" if report["brought"] else f"trained here, {report['merges']:,} merges"
    lines = [
        "# Tokenizer",
        "",
        f"{report['vocabulary']:,} ids, {kind}; {report['ids_used']:,} of them are used by the texts below "
        f"({report['coverage']:.1%} of those that text can give).",
        "",
        "Fertility is tokens per white-space separated word; a text belongs to the script most of its letters are of.",
        "One-token words: the share of words (cut as GPT-2 cuts them, by occurrence) that are a single token.",
        "",
    ]
    for name, corpus in report["corpora"].items():
        lines += [f"## {_cell(name)}", "", "Trained on." if corpus["trained_on"] else "Not trained on.", ""]
        lines += _table([(OURS, corpus), *corpus["compared"].items()], "tokenizer")
        if len(corpus["scripts"]) > 1:
            lines += ["", *_table(list(_by_script(corpus)), "script")]
        lines.append("")
    return "\n".join(lines)


def _by_script(corpus: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for script, figures in corpus["scripts"].items():
        yield script, figures
        for name, other in corpus["compared"].items():
            yield f"{script}: {name}", other["scripts"][script]


def _table(rows: Sequence[tuple[str, Mapping[str, Any]]], first: str) -> list[str]:
    heads = [first, "texts", "tokens", "fertility", "characters/token", "bytes/token", "not given back", "unknown"]
    words = "one_token_words" in rows[0][1]
    heads += ["one-token words"] if words else []
    table = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for name, of in rows:
        cells = [_cell(name), f"{of['texts']:,}", f"{of['tokens']:,}", f"{of['fertility']:.3f}"]
        cells += [f"{of['characters_per_token']:.2f}", f"{of['bytes_per_token']:.2f}"]
        cells += [f"{of['round_trip_failed']:,}", f"{of['unknown']:,}"]
        cells += [f"{of['one_token_words']:.1%}"] if words else []
        table.append("| " + " | ".join(cells) + " |")
    return table


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
