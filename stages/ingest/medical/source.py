"""The medical source: DICOM or image files and their reports, de-identified before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from stages.base.contract import FingerprintedUnless
from stages.base.external_files import ExternalFile, local_path
from stages.ingest.config import SourceConfig
from stages.ingest.files import InputFile
from stages.ingest.medical.name_scores import NAME_THRESHOLD, PERSON_LABELS
from stages.ingest.source import Pair, Reject, Source, Unit

if TYPE_CHECKING:
    from stages.ingest.medical.burned_in import BurnedInTextDetector
    from stages.ingest.medical.deidentify import Scrubber
    from stages.ingest.medical.dicom import DecodedImage, DicomFile
    from stages.ingest.medical.names import NameRecogniser
    from stages.ingest.medical.reports import Reports

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_TEXTS = (".txt", ".csv", ".json", ".jsonl", ".html", ".gz")


class MedicalConfig(SourceConfig):
    """`kind: medical`. Every image of a study is paired with the study's report."""

    list_keys: ClassVar[tuple[str, ...]] = ("paths", "reports")

    private: bool = True
    """Private unless configured otherwise."""
    captions: Annotated[Literal["report", "none"], FingerprintedUnless("report")] = "report"
    """`none`: an image-only source, without reports; pixels and facts are de-identified all the same."""
    reports: Annotated[tuple[str, ...], ExternalFile] = ()
    """CSV or JSON lists, or one text file per study; paths, folders, globs or URLs. Empty with `captions: none`."""
    link: Literal["study", "accession", "file", "folder"] = "study"
    """What identifies a report: the StudyInstanceUID, the accession number, the image's file name (with or without
    extension; with folders, the nearest), or `folder`, a folder around the image as in MIMIC-CXR: of
    `p10/p10000032/s50414267/a.dcm` the report is `p10/p10000032/s50414267.txt`, or the only text in a folder."""
    study_column: str = "study"
    """Column (CSV) or key (JSON) that identifies the report."""
    report_column: str = "report"
    """Column that holds the report; where it is missing, columns `findings` and `impression`."""
    sections: tuple[str, ...] = ("findings", "impression")
    """Sections that become the caption; a report without any of them is rejected. Empty takes whole reports with
    headers full of names, which the rules alone must then detect."""
    keep_words: tuple[str, ...] = ()
    """Words that are not names, such as a local device's; the rules and recognisers leave them."""
    name_threshold: Annotated[float | None, FingerprintedUnless(None)] = NAME_THRESHOLD
    """Least log-odds, by a word's spelling and neighbours, of a name that nothing announces; lower finds more names and
    takes more other words (docs/medical.md has the curve). Null looks only for names with a title, a role or a capital
    that betrays them."""
    recogniser: Annotated[str | None, ExternalFile] = None
    """A folder with a model that recognises names beside the rules: a spaCy pipeline (`meta.json`, `config.cfg`) or a
    Hugging Face token classifier (`config.json`). Its contents count, not its location."""
    recogniser_labels: Annotated[tuple[str, ...], FingerprintedUnless(PERSON_LABELS)] = PERSON_LABELS
    """Which of the model's labels mean people, in any case and without B- and I-."""
    recogniser_threshold: Annotated[float, Field(ge=0, le=1), FingerprintedUnless(0.5)] = 0.5
    """Of a token classifier: least probability that a token belongs to a name."""
    frames: Literal["first", "middle", "all", "reject"] = "first"
    """Which frames of a multi-frame DICOM file become images; `reject` rejects such files (`multi_frame`)."""
    max_pixels: Annotated[int, Field(ge=1024)] = 178_956_970
    """A larger frame is rejected before it is decoded (`too_many_pixels`). The default is Pillow's own limit."""
    burned_in_text: Literal["mask", "drop", "keep"] = "mask"
    """Text on the pixels: `mask` fills what a text detector finds, `drop` rejects such images (`burned_in_annotation`;
    most radiographs bear a side marker, so most are rejected), `keep` looks for none and rejects the modalities of
    `burned_in`."""
    burned_in: tuple[str, ...] = ("US", "SC", "OT", "XC", "ES")
    """With `burned_in_text: keep`, modalities that are rejected unless BurnedInAnnotation is NO."""
    text_side: Annotated[int, Field(ge=256, le=4096)] = 1536
    """Pixels of the longer side for text detection; more detects smaller text and takes longer."""
    text_margin: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Growth of a box before it is filled, in heights of its text."""
    max_text_share: Annotated[float, Field(gt=0, le=1)] = 0.3
    """An image with a larger share of text is a document and is rejected (`mostly_text`)."""

    @model_validator(mode="after")
    def _reports_where_captions_are(self) -> MedicalConfig:
        if self.image_only and self.reports:
            raise ValueError("captions=none reads no reports; set reports=[], or captions=report")
        if not self.image_only and not self.reports:
            raise ValueError("reports is missing; name the reports, or set captions=none for images without any")
        return self


class Medical(Source[MedicalConfig]):
    """Writes 8-bit PNG images into the artifact; the files themselves are never copied."""

    Config: ClassVar[type[SourceConfig]] = MedicalConfig

    def splits(self, files: Sequence[InputFile]) -> list[Unit]:
        """`files_per_partition` files each, without the reports that lie among the images."""
        images = [file for file in files if not file.name.lower().endswith(_TEXTS)] or list(files)
        if self.config.burned_in_text != "keep":
            from stages.imaging.text_boxes import require_detector

            require_detector(f"sources.{self.name}.burned_in_text")
        if self.config.recogniser is not None:
            from stages.ingest.medical.recogniser import check_folder

            check_folder(local_path(self.config.recogniser, self.inputs), f"sources.{self.name}.recogniser")
        step = self.settings.files_per_partition
        return [Unit(tuple(images[start : start + step])) for start in range(0, len(images), step)]

    @cached_property
    def _reports(self) -> Reports:
        from stages.ingest.medical.reports import Reports

        config = self.config
        return Reports(self.files("reports"), config.study_column, config.report_column, f"sources.{self.name}")

    @cached_property
    def _text_detector(self) -> BurnedInTextDetector | None:
        from stages.ingest.medical.burned_in import BurnedInTextDetector

        return None if self.config.burned_in_text == "keep" else BurnedInTextDetector(self.config.text_side)

    @cached_property
    def _recogniser(self) -> NameRecogniser | None:
        from stages.ingest.medical.recogniser import load_recogniser

        config = self.config
        if config.recogniser is None:
            return None
        return load_recogniser(
            local_path(config.recogniser, self.inputs),
            config.recogniser_labels,
            config.recogniser_threshold,
            f"sources.{self.name}.recogniser",
        )

    def read(self, unit: Unit) -> Iterator[Pair | Reject]:
        """One item per file, or per frame with `frames: all`."""
        from stages.ingest.medical.dicom import Unusable

        for file in unit.files:
            try:
                yield from self._items(file)
            except Unusable as error:
                yield Reject(file, str(error))

    def _items(self, file: InputFile) -> Iterator[Pair | Reject]:
        from stages.ingest.medical.dicom import DicomFile, Unusable, read_image

        with file.open() as handle:
            content = handle.read()
        if file.name.lower().endswith(_IMAGES):
            caption, scrubber = self._caption(file, None)
            yield self._pair(file, content, read_image(content, self.config.max_pixels), caption, scrubber)
            return
        dicom = DicomFile(content, self.config.max_pixels)
        frames = dicom.frame_numbers(self.config.frames)
        caption, scrubber = self._caption(file, dicom)
        for frame in frames:
            try:
                yield self._pair(file, content, dicom.image(frame), caption, scrubber, frame)
            except Unusable as error:
                yield Reject(file, str(error))

    def _caption(self, file: InputFile, dicom: DicomFile | None) -> tuple[str, Scrubber]:
        """The caption of a file's images, and the scrubber of its identifiers. Raises Unusable."""
        from stages.ingest.medical.deidentify import Scrubber, stated_identifiers
        from stages.ingest.medical.dicom import Unusable
        from stages.ingest.medical.reports import sections

        report = None if self.config.image_only else self._report(file, dicom)
        if report is None and not self.config.image_only:
            raise Unusable("no_report")
        names, numbers = stated_identifiers(report or "")
        if dicom is not None:
            names, numbers = [*names, *dicom.names], [*numbers, *dicom.numbers]
        scrubber = Scrubber(names, numbers, self.config.keep_words, True, self.config.name_threshold, self._recogniser)
        if report is None:
            return "", scrubber
        caption = scrubber(sections(report, self.config.sections))
        if not caption:
            raise Unusable("no_section")
        return caption, scrubber

    def _report(self, file: InputFile, dicom: DicomFile | None) -> str | None:
        from stages.ingest.medical.reports import folders_of

        folders, base = folders_of(file)
        if self.config.link == "folder":
            return self._reports.by_folder(folders)
        if self.config.link == "file":
            names = (base, base.rsplit(".", 1)[0])
            return next(
                (report for name in names if (report := self._reports.by_key((*folders, name))) is not None), None
            )
        key = dicom.key("StudyInstanceUID" if self.config.link == "study" else "AccessionNumber") if dicom else None
        return self._reports.by_key((key,)) if key else None

    def _pair(
        self, file: InputFile, content: bytes, image: DecodedImage, caption: str, scrubber: Scrubber, frame: int = 0
    ) -> Pair:
        from stages.ingest.medical.burned_in import without_text
        from stages.ingest.medical.dicom import encode_png

        pixels, boxes = without_text(
            image,
            self.config.burned_in_text,
            self._text_detector,
            frozenset(self.config.burned_in),
            self.config.text_margin,
            self.config.max_text_share,
        )
        facts = {name: value for name, value in image.facts.items() if not scrubber.contains_known(str(value))}
        if boxes:
            facts["MaskedText"] = boxes
        # A file's name may identify the patient: hashed with the contents, it cannot be guessed from the result.
        hashed = file.name.encode("utf-8", "surrogateescape") + b"\0" + content + (b"\0%d" % frame if frame else b"")
        name = hashlib.sha256(hashed).hexdigest()[:32]
        return Pair(file, caption, path=f"images/{name}.png", meta=facts, image=encode_png(pixels))
