"""The medical source: local DICOM or PNG files and their reports, de-identified before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stages.contract import How
from stages.ingest.config import SourceConfig
from stages.ingest.files import InputFile
from stages.ingest.source import Pair, Reject, Source, Unit


class MedicalConfig(SourceConfig):
    """`kind: medical`. Every image of a study is paired with the study's report."""

    list_keys: ClassVar[tuple[str, ...]] = ("paths", "reports")
    file_keys: ClassVar[tuple[str, ...]] = ("paths", "reports", "images")

    private: bool = True
    """Stays inside unless you say otherwise."""
    reports: Annotated[tuple[str, ...], How, Field(min_length=1)]
    """CSV files, or one text file per study named after it; paths, folders, globs or URLs."""
    link: Literal["study", "accession", "file"] = "study"
    """What a report's key is: the StudyInstanceUID, the accession number, or the image's file name (with or without
    extension, for images without a header)."""
    study_column: str = "study"
    """Column of a CSV file that holds the key."""
    report_column: str = "report"
    """Column that holds the report; without it, columns `findings` and `impression`."""
    sections: tuple[str, ...] = ("findings", "impression")
    """Sections that become the caption; a report without any of them is rejected. Empty takes whole reports, which
    keeps headers full of names: then the rules alone must find them."""
    burned_in: tuple[str, ...] = ("US", "SC", "OT", "XC", "ES")
    """Modalities whose pixels often show the patient's name: rejected unless BurnedInAnnotation is NO. Any file that
    says YES is rejected."""


class Medical(Source[MedicalConfig]):
    """Writes 8-bit PNG images into the artifact: the files themselves are never copied, whatever their header says."""

    Config: ClassVar[type[SourceConfig]] = MedicalConfig

    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """`files_per_partition` files each."""
        step = self.settings.files_per_partition
        return [Unit(tuple(files[start : start + step])) for start in range(0, len(files), step)]

    @cached_property
    def _reports(self) -> dict[str, str]:
        from stages.ingest.medical.reports import read_reports

        return read_reports(self.files("reports"), self.config.study_column, self.config.report_column)

    def read(self, unit: Unit) -> Iterator[Pair | Reject]:
        """One item per file."""
        from stages.ingest.medical.dicom import Unusable

        for file in unit.files:
            try:
                yield self._pair(file)
            except Unusable as error:
                yield Reject(file, str(error))

    def _pair(self, file: InputFile) -> Pair:
        from stages.ingest.medical.deidentify import Scrubber
        from stages.ingest.medical.dicom import Unusable, read_dicom, read_image
        from stages.ingest.medical.reports import sections

        with file.open() as handle:
            content = handle.read()
        if file.name.lower().endswith((".png", ".jpg", ".jpeg", ".tif", ".tiff")):
            picture = read_image(content)
        else:
            picture = read_dicom(content, frozenset(self.config.burned_in))
        base = file.name.rsplit("/", 1)[-1]
        keys = {
            "study": (picture.study,),
            "accession": (picture.accession,),
            "file": (base, base.rsplit(".", 1)[0]),
        }[self.config.link]
        report = next((self._reports[key] for key in keys if key in self._reports), None)
        if report is None:
            raise Unusable("no_report")
        scrub = Scrubber(picture.names, picture.numbers)
        caption = scrub(sections(report, self.config.sections))
        if not caption:
            raise Unusable("no_section")
        facts = {name: value for name, value in picture.facts.items() if not scrub.knows(str(value))}
        # A file's name may be the patient's: hashed with the contents, it cannot be guessed from the result.
        name = hashlib.sha256(file.name.encode() + b"\0" + content).hexdigest()[:32]
        return Pair(file, caption, path=f"images/{name}.png", meta=facts, image=picture.png)
