"""The medical source as a whole: reports found and cut, and nobody's name in anything it writes."""

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

from stages.contract import UserError
from stages.ingest.medical.reports import sections

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
    with open(tmp_path / "reports.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["study", "report"], ["1.2.3", REPORT]])
    return {"kind": "medical", "paths": [str(folder)], "reports": [str(tmp_path / "reports.csv")]}


def test_all_images_of_a_study_get_its_findings_and_impression(
    ingest: Any, pairs: Any, rejects: Any, studies: dict[str, Any]
) -> None:
    artifact = ingest(studies)
    rows = pairs(artifact)
    assert {row["caption"] for row in rows} == {
        "Ms. [name] moved. A 12 mm nodule, compared with [date]. Nodule. Called to [name]."
    }
    assert sorted(json.loads(row["meta"])["Modality"] for row in rows) == ["CT", "MR"]
    assert rejects(artifact) == [("Fontaine_3.dcm", 0, "no_report")]
    assert artifact.counts == {"rows": 3, "pairs": 2, "images": 2, "repeats": 0, "rejects": 1}


def test_nothing_planted_is_in_any_file_name_table_or_image(ingest: Any, studies: dict[str, Any], pairs: Any) -> None:
    artifact = ingest(studies, pairs_per_file=1, files_per_partition=1)
    for name in artifact.names():
        if name == "rejects.parquet":  # names the file to mend, for its owner's eyes
            continue
        content = artifact.path(name).read_bytes()
        assert not [word for word in PLANTED if word in name or word.encode() in content], name
    # Parquet is compressed: look at its values too.
    text = json.dumps(pairs(artifact))
    assert not [word for word in PLANTED if word in text]


def test_images_are_in_the_artifact_under_names_that_tell_nothing(
    ingest: Any, pairs: Any, contents: Any, studies: dict[str, Any]
) -> None:
    artifact = ingest(studies)
    rows = pairs(artifact)
    assert {row["path"] for row in rows} == set(artifact.names("images/*"))
    for row in rows:
        with Image.open(artifact.path(row["path"])) as image:
            assert (image.format, image.mode, image.info) == ("PNG", "L", {})
    assert contents(ingest(studies, files_per_partition=1, reverse=True)) == contents(artifact)


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


def test_a_csv_without_the_columns_says_which_keys_to_set(ingest: Any, studies: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "reports.csv").write_text("id,text\n1,x\n")
    with pytest.raises(UserError, match=r"reports.csv: needs a column 'study'.*it has id, text.*set study_column"):
        ingest(studies)


def test_sections_are_found_by_heading_in_the_order_asked_for() -> None:
    report = "HISTORY: old\nImpression: good\nFindings : a\nb: c\nFINDING: more"
    assert sections(report, ["findings", "impression"]) == "a\nb: c more good"
    assert sections(report, ["technique"]) == ""
    assert sections(report, []) == report


def test_a_damaged_file_is_a_reject_of_its_own(ingest: Any, rejects: Any, studies: dict[str, Any]) -> None:
    folder = Path(studies["paths"][0])
    (folder / "broken.dcm").write_bytes((folder / "Fontaine_1.dcm").read_bytes()[:-1000])
    assert ("broken.dcm", 0, "undecodable") in rejects(ingest(studies))


def test_what_pydicom_says_of_odd_values_is_not_heard(
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
