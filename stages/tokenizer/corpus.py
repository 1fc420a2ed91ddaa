"""The text a tokenizer is trained on: kept captions source by source, then text files line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, UserError
from stages.base.external_files import local_path
from stages.base.pairs import is_image_only
from stages.base.ranges import Range
from stages.base.tasks import tasks_for
from stages.base.uids import bytes_of, packed
from stages.base.verdicts import read_verdicts, verdict_ranges
from stages.tokenizer.config import TokenizerConfig

_LINES_AT_ONCE = 10_000
_BLOCK = 1 << 20
_LEADING_BYTES = 2


@dataclass(frozen=True)
class Corpus:
    """One source's kept captions, or one text file."""

    name: str
    """The source's name, or the file's."""
    private: bool = False
    """Whether it is excluded from training unless `include_private` is set; only figures of it are reported."""
    pairs: Artifact | None = None
    source: int | None = None
    """Number of the source among the inputs `pairs`; None for a file."""
    verdicts: Artifact | None = None
    last_uid: str | None = None
    """The largest uid to take; None for all."""
    file: Path | None = None
    max_lines: int | None = None
    """Lines of the text file to take; None for all."""

    def batches(self, most: int | None = None) -> Iterator[list[str]]:
        """All texts in a fixed order, or the first `most`: captions by uid, lines as they stand.

        Captions come in the order of their files, those of a range at a time, from Ray tasks where Ray runs.
        """
        if self.file is not None:
            left = most
            for lines in read_lines(self.file, 0, self.bytes()):
                yield lines if left is None else lines[:left]
                left = None if left is None else max(0, left - len(lines))
                if left == 0:
                    return
            return
        assert self.verdicts is not None
        last = None if most is None else _kept_uid(self.verdicts, self.ranges(), [self.name], most)
        if last is not None and (self.last_uid is None or last < self.last_uid):
            yield from replace(self, last_uid=last).batches()
            return
        ranges = self.ranges()
        for captions in tasks_for(len(ranges)).map(Corpus.captions, ((self, each) for each in ranges)):
            for start in range(0, len(captions), _LINES_AT_ONCE):
                yield captions.slice(start, _LINES_AT_ONCE).to_pylist()

    def ranges(self) -> list[Range]:
        """The ranges with pairs of this source, in order."""
        assert self.verdicts is not None
        return [each for each in verdict_ranges(self.verdicts) if self.has(each)]

    def has(self, of: Range) -> bool:
        """Whether a range has pairs of this source."""
        return any(source == self.source for source, _ in of.parts)

    def captions(self, of: Range) -> pa.ChunkedArray:
        """Captions (strings) of this source in one range that were kept and belong to the training sample."""
        assert self.pairs is not None
        assert self.verdicts is not None
        kept = _kept(self.verdicts, of, [self.name], self.last_uid)
        tables = [_read_pairs(self.pairs, part) for source, part in of.parts if source == self.source]
        table = pa.concat_tables(tables)
        return table.filter(pc.is_in(table["uid"], value_set=kept))["caption"]

    def bytes(self) -> int:
        """Number of bytes of the text file to use: up to the end of line `max_lines`. 0 for a source."""
        return 0 if self.file is None else _end(self.file, self.max_lines)


def open_corpora(config: TokenizerConfig, inputs: Inputs, last_uid: str | None) -> list[Corpus]:
    """Sources in the order of the `pairs` input without image-only ones, then files in the order of the config.

    `last_uid` is the result of :func:`find_last_uid`. Raises UserError if a file is missing.
    """
    verdicts = inputs["verdicts"][0]
    corpora: list[Corpus] = []
    for source, pairs in enumerate(inputs["pairs"]):
        if is_image_only(pairs):
            continue
        made = pairs.manifest["config"]
        private = bool(made["source"].get("private", False))
        corpora.append(Corpus(str(made["name"]), private, pairs, source, verdicts, last_uid))
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


def _read_pairs(pairs: Artifact, part: str) -> pa.Table:
    with pairs.open(f"pairs-{part}.parquet") as file:
        return pq.read_table(file, columns=["uid", "caption"])


def find_last_uid(config: TokenizerConfig, inputs: Inputs) -> str | None:
    """The largest uid that `max_captions` admits; None where it admits all."""
    if config.max_captions is None:
        return None
    # Image-only sources have no captions to take.
    names = [str(pairs.manifest["config"]["name"]) for pairs in inputs["pairs"] if not is_image_only(pairs)]
    (verdicts,) = inputs["verdicts"]
    return _kept_uid(verdicts, verdict_ranges(verdicts), names, config.max_captions)


def _kept_uid(verdicts: Artifact, ranges: Sequence[Range], sources: Sequence[str], rank: int) -> str | None:
    """The uid of that rank (1: the smallest) among all kept pairs of some sources; None where there are fewer.

    A uid is a hash: the first ones are a random sample that does not depend on the order of the list. Found by counting
    the uids by their first digits, and sorting those among which it must be.
    """
    if not rank:
        return ""
    counts = np.zeros(1 << 8 * _LEADING_BYTES, np.int64)
    for counted in tasks_for(len(ranges)).map(_count_leading, ((verdicts, each, sources) for each in ranges)):
        counts += counted
    ends = np.cumsum(counts)
    if rank > ends[-1]:
        return None
    first = int(np.searchsorted(ends, rank))
    digits = f"{first:0{2 * _LEADING_BYTES}x}"
    found = tasks_for(len(ranges)).map(_starting_with, ((verdicts, each, sources, digits) for each in ranges))
    return str(sorted(uid for uids in found for uid in uids)[rank - int(ends[first] - counts[first]) - 1])


def _count_leading(verdicts: Artifact, of: Range, sources: Sequence[str]) -> NDArray[np.int64]:
    """Kept pairs by the leading bytes of their uids, int64 [256**bytes]."""
    data = bytes_of(packed(_kept(verdicts, of, sources, None)))[:, :_LEADING_BYTES].astype(np.int64)
    places = data @ (256 ** np.arange(_LEADING_BYTES)[::-1])
    return np.bincount(places, minlength=1 << 8 * _LEADING_BYTES)


def _starting_with(verdicts: Artifact, of: Range, sources: Sequence[str], digits: str) -> list[str]:
    uids = _kept(verdicts, of, sources, None)
    chosen: list[str] = uids.filter(pc.starts_with(uids, digits)).to_pylist()
    return chosen


def _kept(verdicts: Artifact, of: Range, sources: Sequence[str], last_uid: str | None) -> pa.ChunkedArray:
    """Uids (strings) of the kept pairs of some sources in a range, up to the last."""
    table = read_verdicts(verdicts, of, ("uid", "source", "keep"))
    chosen = pc.and_(table["keep"], pc.is_in(table["source"], value_set=pa.array(list(sources), pa.string())))
    if last_uid is not None:
        chosen = pc.and_(chosen, pc.less_equal(table["uid"], last_uid))
    return table["uid"].filter(chosen)
