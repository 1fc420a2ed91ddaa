"""The medical source as a whole: reports are linked and cut, and nothing it writes contains a planted name."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydantic import ValidationError

from stages.base.contract import UserError
from stages.imaging.text_boxes import TextDetector
from stages.ingest.medical.reports import sections
from stages.ingest.plugins import source_config

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
REPORT = """PATIENT NAME: FONTAINE, MARGARET
MRN: 0048213

FINDINGS: Ms. Fontaine moved. A 12 mm nodule,
compared with 03/14/2019.

IMPRESSION: Nodule. Called to Dr. Pembroke.
SIGNED: Ingrid Vasquez, MD"""
PLANTED = ("Fontaine", "FONTAINE", "Margaret", "0048213", "2019", "Pembroke", "Vasquez", "Brigid")


@pytest.fixture
def studies(tmp_path: Path) -> dict[str, Any]:
    """Two DICOM files of one study and one without a report, all of the same invented patient."""
    folder = tmp_path / "Fontaine_Margaret"
    folder.mkdir()
    for name, file, study in (
        ("Fontaine_1.dcm", "CT_small.dcm", "1.2.3"),
        ("Fontaine_2.dcm", "MR_small.dcm", "1.2.3"),
        ("Fontaine_3.dcm", "MR_small.dcm", "1.2.4"),
    ):
        dataset = pydicom.dcmread(FILES / file)
        dataset.PatientName = "Fontaine^Margaret"
        dataset.PatientID = "0048213"
        dataset.StudyInstanceUID = study
        dataset.AccessionNumber = f"A{study}"
        dataset.InstitutionName = "Saint Brigid"
        dataset.StudyDescription = "CT of Margaret"
        dataset.save_as(folder / name, enforce_file_format=True)
    with open(tmp_path / "reports.csv", "w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows([["study", "report"], ["1.2.3", REPORT]])
    return {"kind": "medical", "paths": [str(folder)], "reports": [str(tmp_path / "reports.csv")]}


def test_all_images_of_a_study_get_its_findings_and_impression(
    ingest: Any, pairs: Any, rejects: Any, studies: dict[str, Any]
) -> None:
    artifact = ingest(studies)
    rows = pairs(artifact)
    assert {row["caption"] for row in rows} == {
        "Ms. [name] moved. A 12 mm nodule, compared with [date]. Nodule. Called to Dr. [name]."
    }
    assert sorted(json.loads(row["meta"])["Modality"] for row in rows) == ["CT", "MR"]
    assert rejects(artifact) == [("Fontaine_3.dcm", 0, "no_report")]
    assert {name: artifact.counts[name] for name in ("rows", "pairs", "images", "repeats", "rejects")} == {
        "rows": 3,
        "pairs": 2,
        "images": 2,
        "repeats": 0,
        "rejects": 1,
    }


def test_no_planted_identifier_is_in_any_file_name_table_or_image(
    ingest: Any, studies: dict[str, Any], pairs: Any
) -> None:
    artifact = ingest(studies, pairs_per_file=1, files_per_partition=1)
    for name in artifact.names():
        if name == "rejects.parquet":  # names the file to repair, for its owner
            continue
        content = artifact.path(name).read_bytes()
        assert not [word for word in PLANTED if word in name or word.encode() in content], name
    # Parquet is compressed: look at its values too.
    text = json.dumps(pairs(artifact))
    assert not [word for word in PLANTED if word in text]


def test_images_are_in_the_artifact_under_names_that_identify_nobody(
    ingest: Any, pairs: Any, contents: Any, studies: dict[str, Any]
) -> None:
    artifact = ingest(studies)
    rows = pairs(artifact)
    assert {row["path"] for row in rows} == set(artifact.names("images/*"))
    for row in rows:
        with Image.open(artifact.path(row["path"])) as image:
            assert (image.format, image.mode, image.info) == ("PNG", "L", {})
    assert contents(ingest(studies, files_per_partition=1, reverse=True)) == contents(artifact)


def test_without_reports_every_image_is_taken_and_de_identified_all_the_same(
    ingest: Any, pairs: Any, rejects: Any, studies: dict[str, Any]
) -> None:
    artifact = ingest({"kind": "medical", "paths": studies["paths"], "captions": "none"})
    rows = pairs(artifact)
    assert [row["caption"] for row in rows] == ["", "", ""]
    assert not rejects(artifact)
    assert not [word for word in PLANTED if word in json.dumps(rows)]
    for name in artifact.names("images/*"):
        with Image.open(artifact.path(name)) as image:
            assert (image.format, image.info) == ("PNG", {})


def test_reports_are_named_if_and_only_if_captions_come_from_them(studies: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="captions=none reads no reports"):
        source_config("x", {**studies, "captions": "none"})
    with pytest.raises(ValidationError, match="reports is missing"):
        source_config("x", {"kind": "medical", "paths": studies["paths"]})


def test_reports_are_linked_by_accession_or_file_name_too(
    ingest: Any, pairs: Any, studies: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "A1.2.4.txt").write_text("Impression: a clear picture")
    rows = pairs(ingest({**studies, "reports": [str(folder)], "link": "accession"}))
    assert [row["caption"] for row in rows] == ["a clear picture"]

    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "scan7.png")
    (tmp_path / "by_file.csv").write_text("image,findings,impression\nscan7,Nothing to see.,Normal.\n")
    fields = {
        "kind": "medical",
        "paths": [str(tmp_path / "scan7.png")],
        "reports": [str(tmp_path / "by_file.csv")],
        "link": "file",
        "study_column": "image",
    }
    assert [row["caption"] for row in pairs(ingest(fields))] == ["Nothing to see. Normal."]


def test_a_csv_without_the_columns_names_the_keys_to_set(ingest: Any, studies: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "reports.csv").write_text("id,text\n1,x\n")
    with pytest.raises(UserError, match=r"test.reports, file 1: needs a column 'study'.* its 2; set study_column"):
        ingest(studies)


def test_sections_are_selected_by_heading_in_the_configured_order() -> None:
    report = "HISTORY: old\nImpression: good\nFindings : a\nb: c\nFINDING: more"
    assert sections(report, ["findings", "impression"]) == "a\nb: c more good"
    assert sections(report, ["technique"]) == ""
    assert sections(report, []) == report


def test_a_damaged_file_is_a_reject_of_its_own(ingest: Any, rejects: Any, studies: dict[str, Any]) -> None:
    folder = Path(studies["paths"][0])
    (folder / "broken.dcm").write_bytes((folder / "Fontaine_1.dcm").read_bytes()[:-1000])
    assert ("broken.dcm", 0, "undecodable") in rejects(ingest(studies))


def test_logs_and_warnings_of_pydicom_about_odd_values_are_silenced(
    ingest: Any, studies: dict[str, Any], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    path = Path(studies["paths"][0]) / "Fontaine_1.dcm"
    dataset = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.BodyPartExamined = "knee of Margaret Fontaine"
        dataset.PatientBirthDate = "Fontaine"
        dataset.save_as(path)
    caplog.clear()
    ingest(studies)
    assert "ontaine" not in caplog.text
    assert not [warning for warning in recwarn if "ontaine" in str(warning.message)]


def _scan(path: Path, words: str = "", height: int = 24, burned_in: str = "", modality: str = "CR") -> None:
    """A smooth 400x320 image, as DICOM or PNG, with words printed on it."""
    from PIL import ImageDraw, ImageFont

    rows, columns = np.mgrid[0:320, 0:400]
    image = Image.fromarray((60 + 40 * np.sin(rows / 90) * np.cos(columns / 120)).astype(np.uint8))
    ImageDraw.Draw(image).text((40, 30), words, fill=255, font=ImageFont.load_default(height))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".dcm":
        image.save(path)
        return
    dataset = pydicom.dcmread(FILES / "MR_small.dcm")
    dataset.Modality, dataset.Rows, dataset.Columns = modality, image.height, image.width
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.PixelData = 7, 0, image.tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.WindowCenter, dataset.WindowWidth = 128, 256
    dataset.StudyInstanceUID = "1.2.3"
    if burned_in:
        dataset.BurnedInAnnotation = burned_in
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def scans(tmp_path: Path) -> dict[str, Any]:
    """A folder for :func:`_scan`, and a report that belongs to every scan in it."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "reports.csv").write_text("study,report\n1.2.3,FINDINGS: A clear picture.\n")
    return {"kind": "medical", "paths": [str(tmp_path / "scans")], "reports": [str(tmp_path / "reports.csv")]}


def test_words_on_the_pixels_are_filled_and_counted(ingest: Any, pairs: Any, scans: dict[str, Any]) -> None:
    folder = Path(scans["paths"][0])
    _scan(folder / "a.dcm", "FONTAINE 0048213")
    _scan(folder / "b.dcm")
    artifact = ingest(scans)
    masked = {json.loads(row["meta"]).get("MaskedText") for row in pairs(artifact)}
    assert masked == {1, None}
    for row in pairs(artifact):
        with Image.open(artifact.path(row["path"])) as image:
            assert TextDetector().boxes(image) == []
            # Filled with the grey around it: nothing bright is left, and there is no black block.
            grey = np.asarray(image)
            assert int(grey.max()) <= 110
            assert int(grey.min()) >= 15
    assert artifact.counts["pairs"] == 2


def test_the_policy_for_words_on_the_pixels_is_configured(
    ingest: Any, pairs: Any, rejects: Any, scans: dict[str, Any]
) -> None:
    folder = Path(scans["paths"][0])
    _scan(folder / "clear.dcm")
    _scan(folder / "clear_us.dcm", modality="US")
    _scan(folder / "stated.dcm", burned_in="YES")
    _scan(folder / "words.dcm", "FONTAINE 0048213")
    _scan(folder / "words_stated.dcm", "FONTAINE 0048213", burned_in="YES")

    def rejected(policy: str) -> set[str]:
        rows = rejects(ingest({**scans, "burned_in_text": policy}))
        assert {reason for _, _, reason in rows} == {"burned_in_annotation"}
        return {file.removesuffix(".dcm") for file, _, _ in rows}

    assert rejected("mask") == {"stated"}  # the header states text that is not detected
    assert rejected("drop") == {"stated", "words", "words_stated"}
    assert rejected("keep") == {"stated", "words_stated", "clear_us"}


def test_a_page_of_text_is_rejected(ingest: Any, rejects: Any, scans: dict[str, Any]) -> None:
    folder = Path(scans["paths"][0])
    _scan(folder / "clear.dcm")
    _scan(folder / "page.dcm", "\n".join(["FINDINGS of a long report"] * 9))
    assert rejects(ingest({**scans, "max_text_share": 0.2})) == [("page.dcm", 0, "mostly_text")]


def test_outside_the_regions_of_an_ultrasound_picture_nothing_is_kept(
    ingest: Any, pairs: Any, scans: dict[str, Any]
) -> None:
    path = Path(scans["paths"][0]) / "us.dcm"
    _scan(path, modality="US", burned_in="YES")
    dataset, region = pydicom.dcmread(path), pydicom.Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 50, 60
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 349, 299
    dataset.SequenceOfUltrasoundRegions = [region]
    dataset.save_as(path)
    artifact = ingest(scans)
    (row,) = pairs(artifact)
    with Image.open(artifact.path(row["path"])) as image:
        grey = np.asarray(image)
    assert (grey[60:300, 50:350] > 0).all()
    assert grey.astype(int).sum() == grey[60:300, 50:350].astype(int).sum()


def test_every_frame_becomes_an_image_if_configured(
    ingest: Any, pairs: Any, rejects: Any, scans: dict[str, Any]
) -> None:
    dataset = pydicom.dcmread(FILES / "examples_ybr_color.dcm")
    dataset.StudyInstanceUID = "1.2.3"
    dataset.save_as(Path(scans["paths"][0]) / "loop.dcm")
    count = int(dataset.NumberOfFrames)
    rows = pairs(ingest({**scans, "frames": "all", "burned_in_text": "keep", "burned_in": []}))
    assert sorted(json.loads(row["meta"])["Frame"] for row in rows) == list(range(count))
    assert len({row["path"] for row in rows}) == count
    (row,) = pairs(ingest({**scans, "frames": "middle", "burned_in_text": "keep", "burned_in": []}))
    assert json.loads(row["meta"])["Frame"] == count // 2
    _scan(Path(scans["paths"][0]) / "still.dcm")
    artifact = ingest({**scans, "frames": "reject", "burned_in_text": "keep"})
    assert rejects(artifact) == [("loop.dcm", 0, "multi_frame")]


def test_reports_lie_beside_the_folders_of_their_studies_as_in_mimic_cxr(
    ingest: Any, pairs: Any, rejects: Any, tmp_path: Path
) -> None:
    root = tmp_path / "files"
    for patient, study, text in (
        ("p10000032", "s1", "Clear."),
        ("p10000032", "s2", "Worse."),
        ("p10000764", "s1", "Old."),
    ):
        _scan(root / "p10" / patient / study / "a.jpg")
        _scan(root / "p10" / patient / study / "b.dcm")
        report = f"                FINAL REPORT\n INDICATION:  ___ year old.\n\n FINDINGS: \n\n {text} {study}.\n"
        (root / "p10" / patient / f"{study}.txt").write_text(report)
    _scan(root / "p10" / "p10000764" / "s3" / "c.jpg")
    _scan(root / "p11" / "p11000001" / "s7" / "d.jpg")
    (root / "p11" / "p11000001" / "s7" / "notes.txt").write_text("IMPRESSION: Inside.")
    fields = {"kind": "medical", "paths": [str(root)], "reports": [str(root)], "link": "folder"}
    artifact = ingest(fields)
    assert sorted(row["caption"] for row in pairs(artifact)) == sorted(
        ["Clear. s1."] * 2 + ["Worse. s2."] * 2 + ["Old. s1."] * 2 + ["Inside."]
    )
    assert rejects(artifact) == [("c.jpg", 0, "no_report")]


def test_a_json_list_of_reports_is_linked_by_file(ingest: Any, pairs: Any, rejects: Any, tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", "c/y.png"):
        _scan(tmp_path / "images" / name)
    listed = [
        {"file": "images/a/x.png", "note": "First."},
        {"file": "images/b/x.png", "note": "Second."},
        {"file": "y.png", "note": "One."},
        {"file": "y.png", "note": "Another."},
    ]
    (tmp_path / "meta.json").write_text(json.dumps(listed))
    fields = {
        "kind": "medical",
        "paths": [str(tmp_path / "images")],
        "reports": [str(tmp_path / "meta.json")],
        "link": "file",
        "study_column": "file",
        "report_column": "note",
        "sections": [],
    }
    artifact = ingest(fields)
    assert sorted(row["caption"] for row in pairs(artifact)) == ["First.", "Second."]
    assert rejects(artifact) == [("y.png", 0, "ambiguous_report")]
    (tmp_path / "meta.json").write_text('{"file": [')
    with pytest.raises(UserError, match=r"^sources.test.reports, file 1: line 1 is no JSON"):
        ingest(fields)


def test_reports_of_another_encoding_lose_no_letter(ingest: Any, pairs: Any, scans: dict[str, Any]) -> None:
    folder = Path(scans["paths"][0])
    _scan(folder / "a.dcm")
    for encoding in ("cp1252", "utf-16", "utf-8-sig"):
        Path(scans["reports"][0]).write_bytes("study,report\n1.2.3,FINDINGS: Dr. Müller saw it.\n".encode(encoding))
        assert [row["caption"] for row in pairs(ingest(scans))] == ["Dr. [name] saw it."]


def test_the_shared_radiographs_become_pairs(ingest: Any, pairs: Any, shared: Path) -> None:
    folder = shared / "data/cxr"
    fields = {
        "kind": "medical",
        "paths": [str(folder / "images" / "0*.jpg")],
        "reports": [str(folder / "meta.json")],
        "link": "file",
        "study_column": "file",
        "sections": [],
        "burned_in_text": "keep",
    }
    artifact = ingest(fields)
    assert artifact.counts["rejects"] == 0
    assert artifact.counts["pairs"] == len(list((folder / "images").glob("0*.jpg"))) > 5
    assert all(row["caption"] for row in pairs(artifact))


def test_an_upper_case_heading_needs_no_colon() -> None:
    assert sections("FINAL REPORT\nFINDINGS\nclear\nFINAL IMPRESSION: good", ["findings", "impression"]) == "clear good"


def test_a_path_without_files_is_named_by_its_number_alone(scans: dict[str, Any], tmp_path: Path) -> None:
    from stages.ingest.plugins import source_config

    _scan(Path(scans["paths"][0]) / "a.png")
    fields = {**scans, "reports": [*scans["reports"], str(tmp_path / "Fontaine" / "*.txt")]}
    with pytest.raises(UserError) as caught:
        source_config("ward", fields).external_files("sources.ward")
    assert str(caught.value).startswith("sources.ward.reports: nothing at place 2 of the list")
    with pytest.raises(UserError, match="Fontaine"):
        source_config("ward", {**fields, "private": False}).external_files("sources.ward")
