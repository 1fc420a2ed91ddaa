"""The tokenizer stage: a byte-level BPE vocabulary from the captions that were kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from stages.artifact import Artifact
from stages.contract import Inputs, Partition, Stage, Task
from stages.tokenizer.config import TokenizerConfig

if TYPE_CHECKING:
    from stages.tokenizer.corpus import Corpus


class Tokenizer(Stage[TokenizerConfig]):
    """Inputs: `pairs` (one per source), `verdicts`, and `worlds` (those of `TokenizerConfig.worlds()`, in order)."""

    name = "tokenizer"
    tracked = ("*.json",)

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One: merges are learnt from the counts of the whole text."""
        return [Partition("00000")]

    def run(self, partition: Partition, task: Task) -> None:
        """Train and report. Raises UserError when the text is too small for the vocabulary asked for."""
        from stages.tokenizer.corpus import open_corpora
        from stages.tokenizer.load import load
        from stages.tokenizer.report import report
        from stages.tokenizer.train import train, write

        corpora = open_corpora(self.config, task.inputs)
        write(self.config, train(self.config, self._lines(corpora, task)), task.out)
        tokenizer = load(task.out)
        figures = report(self.config, corpora, tokenizer)
        (task.out / "report.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        task.count("vocabulary", tokenizer.vocabulary)

    def _lines(self, corpora: list[Corpus], task: Task) -> Iterator[str]:
        for corpus in corpora:
            if corpus.private and not self.config.include_private:
                continue
            kind = "captions" if corpus.file is None else "text_lines"
            for line in corpus.lines():
                task.count(kind)
                yield line

    def summary(self, artifact: Artifact) -> dict[str, float]:
        """Vocabulary, and fertility and characters per token of each corpus."""
        figures = artifact.read_json("report.json")
        out = {"vocabulary": float(figures["vocabulary"])}
        for name, corpus in figures["corpora"].items():
            out[f"fertility.{name}"] = corpus["fertility"]
            out[f"characters_per_token.{name}"] = corpus["characters_per_token"]
        return out
