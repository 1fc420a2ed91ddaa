"""Google's Conceptual Captions: tab-separated lists of two columns without header or quoting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from stages.ingest.config import SourceConfig
from stages.ingest.files import InputFile
from stages.ingest.source import Pair, Reject, Source, Unit

_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


class ConceptualConfig(SourceConfig):
    """`kind: cc3m` and `kind: cc12m`."""


class _TwoColumns(Source[ConceptualConfig]):
    """Lines are split at tabs and nothing else: a quotation mark, balanced or not, is a character of the caption."""

    Config: ClassVar[type[SourceConfig]] = ConceptualConfig
    caption_first: ClassVar[bool]

    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """Byte ranges of `bytes_per_partition`; a line belongs to the range that its first byte is in."""
        units = []
        for file in files:
            if file.name.endswith(_COMPRESSED):
                units.append(Unit((file,)))
                continue
            step = self.settings.bytes_per_partition
            size = file.size()
            units += [Unit((file,), start, min(start + step, size)) for start in range(0, size, step)]
        return units

    def read(self, unit: Unit) -> Iterator[Pair | Reject]:
        """One item per line."""
        (file,) = unit.files
        for line in _lines(unit):
            try:
                columns = line.decode("utf-8").split("\t")
            except UnicodeDecodeError:
                yield Reject(file, "not_utf8")
                continue
            if len(columns) != 2:
                yield Reject(file, "not_two_columns")
                continue
            caption, url = columns if self.caption_first else reversed(columns)
            yield Pair(file, caption, url=url)


class ConceptualCaptions3M(_TwoColumns):
    """CC3M: `caption⇥url`."""

    caption_first = True


class ConceptualCaptions12M(_TwoColumns):
    """CC12M: `url⇥caption`, the other way round."""

    caption_first = False


def _lines(unit: Unit) -> Iterator[bytes]:
    # Only \n ends a line: str.splitlines would also break captions at U+2028, \v and the like.
    (file,) = unit.files
    options = {"compression": "infer"} if file.name.endswith(_COMPRESSED) else {}
    with file.open(**options) as handle:
        position = unit.start
        if position:
            # Step back one byte: a line that begins exactly at `start` is ours, one begun before it is not.
            handle.seek(position - 1)
            position += len(handle.readline()) - 1
        while unit.end is None or position < unit.end:
            line = handle.readline()
            if not line:
                return
            position += len(line)
            yield line.rstrip(b"\r\n")
