"""The tokenizer stage: trains a byte-level BPE vocabulary on the kept captions, or imports a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext
from stages.base.external_files import local_path
from stages.tokenizer.config import TokenizerConfig

if TYPE_CHECKING:
    from stages.tokenizer.corpus import Corpus


class Tokenizer(Stage[TokenizerConfig]):
    """Inputs: `pairs` (one per source), `verdicts`, and what holds texts that the config addresses
    (`stages/base/external_files.py`).

    Partitions count words, each over a piece of the text; `finish` adds the counts up and learns the merges once.
    """

    name = "tokenizer"
    version = 2
    tracked = ("*.json", "*.md")
    holds_samples = False  # it keeps words and their counts, of no caption in particular

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One per range of the verdicts and per piece of a text file; none for an imported tokenizer."""
        return [] if self.config.brought else list(self._pieces(inputs))

    def _pieces(self, inputs: Inputs) -> Iterator[Partition]:
        from stages.base.verdicts import verdict_ranges
        from stages.tokenizer.corpus import find_last_uid, open_corpora

        size, last = self.config.bytes_per_partition, find_last_uid(self.config, inputs)
        corpora = open_corpora(self.config, inputs, last)
        captions = [corpus for corpus in corpora if self._counts(corpus) and corpus.pairs is not None]
        for of in verdict_ranges(inputs["verdicts"][0]) if captions else ():
            if any(corpus.has(of) for corpus in captions):
                yield Partition(f"range-{of.number:05d}", {"range": of.number, "last_uid": last})
        for number, corpus in enumerate(corpora):
            end = corpus.bytes()
            step = max(1, -(-end // -(-end // size))) if end else 1  # as few pieces as possible, of equal size
            for start in range(0, end, step):
                stop = min(start + step, end)
                # The range is in the id: a run resumed with another piece size must not reuse these partitions.
                yield Partition(f"{number:04d}-{start}-{stop}", {"corpus": number, "start": start, "stop": stop})

    def _counts(self, corpus: Corpus) -> bool:
        """Whether the vocabulary is learnt from it."""
        return self.config.include_private or not corpus.private

    def run(self, partition: Partition, context: StageContext) -> None:
        """Count one piece's words. Raises UserError for text that is not UTF-8."""
        from stages.base.verdicts import verdict_ranges
        from stages.tokenizer.corpus import open_corpora, read_lines
        from stages.tokenizer.counting import WordCounter, write_counts
        from stages.tokenizer.pieces import texts_array

        spec = partition.spec
        corpora = open_corpora(self.config, context.inputs, spec.get("last_uid"))
        counter = WordCounter()
        if "range" in spec:
            of = verdict_ranges(context.input("verdicts"))[spec["range"]]
            for corpus in corpora:
                if self._counts(corpus) and corpus.has(of):
                    captions = corpus.captions(of)
                    for chunk in captions.chunks:
                        counter.add(chunk)
                    context.count("captions", len(captions))
        else:
            file = corpora[spec["corpus"]].file
            assert file is not None
            for lines in read_lines(file, spec["start"], spec["stop"]):
                counter.add(texts_array(lines))
                context.count("text_lines", len(lines))
        write_counts(counter.table(), context.intermediate / f"words-{partition.id}.parquet")

    def finish(self, context: StageContext) -> None:
        """Train or import, and report. Raises UserError if the text is too small for the configured vocabulary."""
        from stages.tokenizer.corpus import find_last_uid, open_corpora
        from stages.tokenizer.load import load
        from stages.tokenizer.report import page, report

        if self.config.brought:
            from stages.tokenizer.imported import write_imported

            folder = str(local_path(str(self.config.folder), context.inputs))
            write_imported(self.config.model_copy(update={"folder": folder}), context.out)
        else:
            from stages.tokenizer.counting import sum_counts
            from stages.tokenizer.train import learn, write

            write(
                self.config, learn(self.config, sum_counts(context.intermediate.glob("words-*.parquet"))), context.out
            )
        tokenizer = load(context.out)
        corpora = open_corpora(self.config, context.inputs, find_last_uid(self.config, context.inputs))
        figures = report(self.config, corpora, tokenizer)
        (context.out / "report.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        (context.out / "report.md").write_text(page(figures), encoding="utf-8")
        context.count("vocabulary", tokenizer.vocabulary)

    def summary(self, artifact: Artifact) -> dict[str, float]:
        """Vocabulary, and fertility and characters per token of each corpus."""
        figures = artifact.read_json("report.json")
        out = {"vocabulary": float(figures["vocabulary"])}
        for name, corpus in figures["corpora"].items():
            out[f"fertility.{name}"] = corpus["fertility"]
            out[f"characters_per_token.{name}"] = corpus["characters_per_token"]
        return out
