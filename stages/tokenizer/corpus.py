"""The text a tokenizer is trained on: kept captions source by source, then text files line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.artifact import Artifact
from stages.contract import Inputs, UserError
from stages.tokenizer.config import TokenizerConfig


@dataclass(frozen=True)
class Corpus:
    """One source's kept captions, or one text file."""

    name: str
    """The source's name, or the file's."""
    private: bool
    """Whether it is left out of training unless the config says otherwise; only figures of it are reported."""
    captions: pa.ChunkedArray | None = None
    file: Path | None = None
    max_lines: int | None = None

    def lines(self) -> Iterator[str]:
        """The texts, in a fixed order. Raises UserError for a file that is not UTF-8."""
        if self.captions is not None:
            for chunk in self.captions.chunks:
                yield from chunk.to_pylist()
        if self.file is not None:
            row = 0
            try:
                with open(self.file, encoding="utf-8", newline="\n") as file:
                    for line in islice(file, self.max_lines):
                        row += 1
                        if text := line.strip():
                            yield text
            except UnicodeDecodeError:
                raise UserError(f"{self.file}: not UTF-8 text after line {row}; convert it") from None


def open_corpora(config: TokenizerConfig, inputs: Inputs) -> list[Corpus]:
    """Sources in the order of the `pairs` input, then files in the order of the config.

    Raises UserError when a file is missing.
    """
    kept = _kept(inputs["verdicts"][0], config.max_captions)
    corpora = [_source(pairs, kept) for pairs in inputs["pairs"]]
    worlds = dict(zip(config.worlds(), inputs.get("worlds", ()), strict=True))
    for text in config.text:
        path = worlds[text.world].path(text.path) if text.world else Path(text.path)
        if not path.is_file():
            place = f"world {text.world}" if text.world else "the local disk"
            raise UserError(f"tokenizer.text: no file {text.path} on {place}; put it there or name the right one")
        corpora.append(Corpus(path.name, private=False, file=path, max_lines=config.max_text_lines))
    return corpora


def _kept(verdicts: Artifact, most: int | None) -> pa.Table:
    # Sorted by uid, a hash: the first rows are a random sample that no order of listing can bias.
    table = pq.read_table(verdicts.path("verdicts.parquet"), columns=["uid", "source", "keep"])
    kept = table.filter(table["keep"]).select(["uid", "source"])
    return kept if most is None else kept.slice(0, most)


def _source(pairs: Artifact, kept: pa.Table) -> Corpus:
    config = pairs.manifest["config"]
    name = str(config["name"])
    uids = kept.filter(pc.equal(kept["source"], name))["uid"]
    tables = [pq.read_table(pairs.path(file), columns=["uid", "caption"]) for file in pairs.names("pairs-*.parquet")]
    chosen = [table.filter(pc.is_in(table["uid"], value_set=uids)) for table in tables]
    captions = pa.concat_tables(chosen).sort_by("uid")["caption"] if chosen else pa.chunked_array([], pa.string())
    return Corpus(name, private=bool(config["source"].get("private", False)), captions=captions)
