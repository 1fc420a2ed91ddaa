"""The text a tokenizer is trained on: kept captions source by source, then text files line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, UserError
from stages.base.external_files import local_path
from stages.base.pairs import is_image_only
from stages.tokenizer.config import TokenizerConfig

_ROWS_AT_ONCE = 500_000
_LINES_AT_ONCE = 10_000
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """One source's kept captions, or one text file."""

    name: str
    """The source's name, or the file's."""
    private: bool = False
    """Whether it is excluded from training unless `include_private` is set; only figures of it are reported."""
    pairs: Artifact | None = None
    verdicts: Artifact | None = None
    last_uid: str | None = None
    """The largest uid to take; None for all."""
    file: Path | None = None
    max_lines: int | None = None
    """Lines of the text file to take; None for all."""

    def batches(self, most: int | None = None) -> Iterator[list[str]]:
        """All texts in a fixed order, or the first `most`: captions by uid, lines as they stand."""
        if self.file is not None:
            left = most
            for lines in read_lines(self.file, 0, self.bytes()):
                yield lines if left is None else lines[:left]
                left = None if left is None else max(0, left - len(lines))
                if left == 0:
                    return
        else:
            yield from self._captions(most)

    def _captions(self, most: int | None) -> Iterator[list[str]]:
        assert self.pairs is not None
        assert self.verdicts is not None
        if most is None:
            chosen = (self.captions(name) for name in self.pairs.names("pairs-*.parquet"))
        else:
            uids = _first_kept(self.verdicts, self.name, self.last_uid, most)
            tables = (_read_pairs(self.pairs, name) for name in self.pairs.names("pairs-*.parquet"))
            chosen = (table.filter(pc.is_in(table["uid"], value_set=uids))["caption"] for table in tables)
        for captions in chosen:
            for batch in captions.chunks:
                for start in range(0, len(batch), _LINES_AT_ONCE):
                    yield batch[start : start + _LINES_AT_ONCE].to_pylist()

    def bytes(self) -> int:
        """Number of bytes of the text file to use: up to the end of line `max_lines`. 0 for a source."""
        return 0 if self.file is None else _end(self.file, self.max_lines)

    def captions(self, name: str) -> pa.ChunkedArray:
        """Captions (strings) in one file of pairs that were kept and belong to the training sample."""
        assert self.pairs is not None
        assert self.verdicts is not None
        table = _read_pairs(self.pairs, name)
        kept = [
            uids.filter(pc.is_in(uids, value_set=table["uid"]))
            for uids in _kept(self.verdicts, self.name, self.last_uid)
        ]
        sampled = pa.concat_arrays(kept) if kept else pa.array([], pa.string())
        return table.filter(pc.is_in(table["uid"], value_set=sampled))["caption"]


def open_corpora(config: TokenizerConfig, inputs: Inputs, last_uid: str | None) -> list[Corpus]:
    """Sources in the order of the `pairs` input without image-only ones, then files in the order of the config.

    `last_uid` is the result of :func:`find_last_uid`. Raises UserError if a file is missing.
    """
    verdicts = inputs["verdicts"][0]
    corpora: list[Corpus] = []
    for pairs in inputs["pairs"]:
        if is_image_only(pairs):
            continue
        made = pairs.manifest["config"]
        private = bool(made["source"].get("private", False))
        corpora.append(Corpus(str(made["name"]), private, pairs=pairs, verdicts=verdicts, last_uid=last_uid))
    for text in config.text:
        path = local_path(text.path, inputs)
        if not path.is_file():
            raise UserError(f"tokenizer.text: no file {text.path}; put it there or name the right one")
        corpora.append(Corpus(_unused(path.name, corpora), file=path, max_lines=config.max_text_lines))
    return corpora


def read_lines(file: Path, start: int, stop: int) -> Iterator[list[str]]:
    """Lines that begin in bytes [start, stop), stripped, without empty ones, some thousands at a time.

    Adjacent ranges yield each line exactly once. Raises UserError for a file that is not UTF-8.
    """
    lines: list[str] = []
    with open(file, "rb") as content:
        # From the byte before, so that a line that begins exactly at `start` is not mistaken for the rest of one.
        position = content.seek(max(0, start - 1))
        if start:
            position += len(content.readline())
        while position < stop and (line := content.readline()):
            try:
                text = line.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise UserError(f"{file}: not UTF-8 text at byte {position + error.start}; convert it") from None
            position += len(line)
            if text:
                lines.append(text)
            if len(lines) >= _LINES_AT_ONCE:
                yield lines
                lines = []
    if lines:
        yield lines


def _unused(name: str, corpora: list[Corpus]) -> str:
    names = {corpus.name for corpus in corpora}
    number, free = 1, name
    while free in names:
        number += 1
        free = f"{name} ({number})"
    return free


def _end(file: Path, max_lines: int | None) -> int:
    """Bytes of a file up to the end of its line `max_lines`."""
    size = file.stat().st_size
    if max_lines is None:
        return size
    lines = position = 0
    with open(file, "rb") as content:
        while lines < max_lines and (block := content.read(_BLOCK)):
            if lines + block.count(b"\n") < max_lines:
                lines += block.count(b"\n")
                position += len(block)
                continue
            at = -1
            for _ in range(max_lines - lines):
                at = block.index(b"\n", at + 1)
            return position + at + 1
    return size if max_lines else 0


def _read_pairs(pairs: Artifact, name: str) -> pa.Table:
    return pq.read_table(pairs.path(name), columns=["uid", "caption"])


def find_last_uid(config: TokenizerConfig, inputs: Inputs) -> str | None:
    """The largest uid that `max_captions` admits; None where it admits all."""
    most = config.max_captions
    if most is None:
        return None
    image_only = [str(pairs.manifest["config"]["name"]) for pairs in inputs["pairs"] if is_image_only(pairs)]
    # Sorted by uid, a hash: the first rows are a random sample that does not depend on the order of the list.
    seen, table = 0, pq.ParquetFile(inputs["verdicts"][0].path("verdicts.parquet"))
    for batch in table.iter_batches(_ROWS_AT_ONCE, columns=["uid", "source", "keep"]):
        kept = batch["uid"].filter(batch["keep"])
        if image_only:  # they have no captions to take
            captioned = pc.invert(pc.is_in(batch["source"], value_set=pa.array(image_only, pa.string())))
            kept = batch["uid"].filter(pc.and_(batch["keep"], captioned))
        if most <= seen + len(kept) and most > seen:
            return str(kept[most - seen - 1])
        seen += len(kept)
    return None if most else ""


def _kept(verdicts: Artifact, source: str, last_uid: str | None) -> Iterator[pa.Array]:
    """Uids (strings, ascending) of a source's kept pairs, a batch of the table at a time."""
    table = pq.ParquetFile(verdicts.path("verdicts.parquet"))
    for batch in table.iter_batches(_ROWS_AT_ONCE, columns=["uid", "source", "keep"]):
        chosen = pc.and_(batch["keep"], pc.equal(batch["source"], source))
        if last_uid is not None:
            chosen = pc.and_(chosen, pc.less_equal(batch["uid"], last_uid))
        yield batch["uid"].filter(chosen)
        if last_uid is not None and len(batch) and batch["uid"][-1].as_py() > last_uid:
            return


def _first_kept(verdicts: Artifact, source: str, last_uid: str | None, most: int) -> pa.Array:
    batches: list[pa.Array] = []
    left = most
    for uids in _kept(verdicts, source, last_uid):
        batches.append(uids[:left])
        left -= len(batches[-1])
        if left <= 0:
            break
    return pa.concat_arrays(batches) if batches else pa.array([], pa.string())
