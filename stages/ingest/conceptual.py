"""Google's Conceptual Captions: tab-separated lists of two columns without header or quoting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from stages.base.contract import FingerprintedUnless
from stages.base.external_files import ExternalFile
from stages.ingest.config import SourceConfig, TextListConfig
from stages.ingest.files import InputFile
from stages.ingest.source import Columns, Digest, Item, Pair, Reject, Source, Unit, checked_digest
from stages.ingest.text_files import lines, ranges


class ConceptualConfig(TextListConfig):
    """`kind: cc3m` and `kind: cc12m`. With `captions: none` a line may also be a URL alone."""

    list_keys: ClassVar[tuple[str, ...]] = ("paths", "hashes")

    captions: Annotated[Literal["list", "none"], FingerprintedUnless("list")] = "list"
    """`none`: an image-only source. A column of captions may be missing; one that is there is ignored."""
    hashes: Annotated[tuple[str, ...], ExternalFile] = ()
    """CC12M's list of hash codes (`url⇥SHA256⇥MD5`, `cc_hashes/cc12m.tsv.gz`), joined by URL into `meta`, so that the
    download can check whether it got the original picture. Optional."""


class _TwoColumns(Source[ConceptualConfig]):
    """Lines are split at tabs and nothing else: a quotation mark, balanced or not, is a character of the caption."""

    Config: ClassVar[type[SourceConfig]] = ConceptualConfig
    caption_first: ClassVar[bool]

    def units(self) -> list[Unit]:
        """Those of the pairs, then those of the hash codes."""
        return super().units() + (self._ranges(self.files("hashes"), "hashes") if self.config.hashes else [])

    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """Byte ranges of `bytes_per_partition`."""
        return self._ranges(files, "paths")

    def _ranges(self, files: Sequence[InputFile], role: str) -> list[Unit]:
        return ranges(files, self.settings.bytes_per_partition, role, self.config.encoding)

    def read(self, unit: Unit) -> Iterator[Item]:
        """One item per line."""
        return self._digests(unit) if unit.role == "hashes" else self._pairs(unit)

    def _pairs(self, unit: Unit) -> Iterator[Item]:
        (file,) = unit.files
        image_only, captioned = self.config.image_only, False
        names = ("caption", "url") if self.caption_first else ("url", "caption")
        if unit.start == 0 and not image_only:
            yield Columns(file, dict.fromkeys(names, "string"))
        for line in lines(unit, self.config.encoding):
            if line is None:
                yield Reject(file, "line_too_long")
                continue
            try:
                columns = line.decode("utf-8").split("\t")
            except UnicodeDecodeError:
                yield Reject(file, "not_utf8")
                continue
            if image_only and len(columns) == 1:
                yield Pair(file, "", columns[0])
                continue
            if len(columns) != 2:
                yield Reject(file, "not_two_columns")
                continue
            captioned = True
            caption, url = columns if self.caption_first else reversed(columns)
            yield Pair(file, caption, url)
        if unit.start == 0 and image_only:
            listed = names if captioned else ("url",)
            yield Columns(file, dict.fromkeys(listed, "string"), ("caption",) if captioned else ())

    def _digests(self, unit: Unit) -> Iterator[Item]:
        (file,) = unit.files
        # Told apart from a list of pairs that has the same name.
        file = replace(file, name=f"hashes/{file.name}")
        if unit.start == 0:
            yield Columns(file, dict.fromkeys(("url", "sha256", "md5"), "string"))
        for line in lines(unit, self.config.encoding):
            columns = (line or b"").decode("utf-8", "replace").split("\t")
            digests = [checked_digest(kind, value) for kind, value in zip(("sha256", "md5"), columns[1:], strict=False)]
            if len(columns) != 3 or not any(digests):
                yield Reject(file, "not_a_digest")
            else:
                yield Digest(file, columns[0].strip(), *digests)


class ConceptualCaptions3M(_TwoColumns):
    """CC3M: `caption⇥url`."""

    caption_first = True


class ConceptualCaptions12M(_TwoColumns):
    """CC12M: `url⇥caption`, the other way round."""

    caption_first = False
