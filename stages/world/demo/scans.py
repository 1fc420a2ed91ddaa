"""DICOM files that pydicom carries, given invented patients and reports that a careful ingest must not let through."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from stages.world.demo.listing import DemoLists
from stages.world.plugin import package_folder

_ROOT_UID = "1.2.826.0.1.3680043.8.498.20260100"


@dataclass(frozen=True)
class Patient:
    """Somebody who does not exist."""

    family: str
    given: str
    record: str
    born: str
    """YYYYMMDD, as DICOM has it."""


@dataclass(frozen=True)
class Study:
    """Images of one examination and its report; `{...}` in the findings are identifiers the report gives away."""

    files: tuple[str, ...]
    """Below pydicom/data/test_files."""
    patient: Patient
    findings: str
    impression: str
    fault: str = ""
    reason: str = ""
    burned_in: str | None = None


_FONTAINE = Patient("Fontaine", "Margaret", "MRN-0048213", "19481117")
_OKONKWO = Patient("Okonkwo", "Chidi", "MRN-0077120", "19620304")
_NG = Patient("Ng", "Siew-Ling", "MRN-0101846", "19990830")
_DOCTOR, _REFERRER = "Harold Pembroke", "Ingrid Vasquez"
_HOSPITAL = "Saint Brigid General Hospital"

STUDIES = (
    Study(
        ("CT_small.dcm",),
        _FONTAINE,
        "Axial image of the thoracic spine shows a normal vertebral body. {full} has no fracture; compared with the"
        " examination of {slash_date}. The spinal canal is 14 x 12 mm wide.",
        "No acute abnormality of the spine. Discussed with Dr. {referrer} at 4:15 PM.",
    ),
    Study(
        ("MR_small.dcm", "MR_small_RLE.dcm"),
        _OKONKWO,
        "Magnetic resonance image with bright soft tissue and dark air. Mr. {family} moved during the examination,"
        " record number {record}.",
        "Image of limited quality without a visible mass. Call 555-014-2237 with questions.",
        "same picture in two files",
        "duplicate.exact",
    ),
    Study(
        ("examples_overlay.dcm",),
        _NG,
        "Axial image of the abdomen after contrast. Both kidneys enhance evenly. {family} was seen before in"
        " {hospital} on March 3, 2018.",
        "A bright lesion of the liver next to the gallbladder. Patient lives at 12 Oak Tree Lane, Springfield.",
    ),
    Study(
        ("J2K_pixelrep_mismatch.dcm",),
        _FONTAINE,
        "Axial computed tomography of the head at the level of the skull base, requested by Dr. {referrer}.",
        "No bleeding and no fracture of the skull. {given} was informed on {long_date}.",
    ),
    Study(
        ("examples_ybr_color.dcm",),
        _OKONKWO,
        "Ultrasound image of the heart in the apical view. The chambers are of normal size.",
        "Normal motion of the heart valves. Report sent to h.pembroke@saintbrigid.example.",
        burned_in="NO",
    ),
    Study(
        ("examples_rgb_color.dcm",),
        _NG,
        "Doppler ultrasound of a lymph node with strong flow.",
        "Reactive lymph node.",
        "hospital's name burned into the picture, to be masked",
    ),
    Study(
        ("JPEG2000.dcm",),
        _FONTAINE,
        "Whole body bone scan with even uptake of the tracer.",
        "No sign of bone metastases.",
        "very tall image",
        "rule.max_aspect_ratio",
    ),
    Study(
        tuple(f"dicomdirtests/77654033/{series}" for series in ("CR1/6154", "CR2/6247", "CR3/6278")),
        _OKONKWO,
        "Radiograph of the cervical spine in three views with normal alignment.",
        "No fracture of the cervical spine.",
        "tiny MONOCHROME1 image",
        "rule.min_side",
    ),
    Study(("dicomdirtests/77654033/CT2/17106",), _NG, "", "", "no report", "reject.no_report"),
    Study(("rtdose_1frame.dcm",), _NG, "Dose plan.", "Dose plan.", "not a picture", "reject.not_a_picture"),
)


def write_scans(out: Path, listing: DemoLists) -> int:
    """Write `<n>_<m>.dcm`, `reports.csv` and `planted.json` (all strings that must not survive); returns files."""
    import pydicom

    out.mkdir(parents=True, exist_ok=True)
    source = package_folder("pydicom", "pydicom==3.0.2") / "data" / "test_files"
    files = 0
    with open(out / "reports.csv", "w", encoding="utf-8", newline="") as table:
        reports = csv.writer(table)
        reports.writerow(["study", "report"])
        for number, study in enumerate(STUDIES, 1):
            uid = f"{_ROOT_UID}.{number}"
            for part, file in enumerate(study.files, 1):
                dataset = pydicom.dcmread(source / file)
                _name(dataset, study, uid, number)
                name = f"{number:02d}_{part}.dcm"
                dataset.save_as(out / name, enforce_file_format=True)
                files += 1
                if study.fault:
                    more = {"group": name.split("_")[0]} if study.reason.startswith("duplicate") else {}
                    listing.expect("medical", None, None, study.fault, study.reason, file=name, **more)
            if study.reason != "reject.no_report":
                reports.writerow([uid, _report(study, number)])
    (out / "planted.json").write_text(json.dumps(sorted(_identifiers())), encoding="utf-8")
    return files


def _name(dataset: object, study: Study, uid: str, number: int) -> None:
    patient = study.patient
    values = {
        "PatientName": f"{patient.family}^{patient.given}",
        "PatientID": patient.record,
        "PatientBirthDate": patient.born,
        "PatientAddress": "12 Oak Tree Lane, Springfield",
        "AccessionNumber": f"ACC{900 + number}",
        "ReferringPhysicianName": "^".join(reversed(_REFERRER.split())),
        "InstitutionName": _HOSPITAL,
        "StudyInstanceUID": uid,
        "StudyDate": "20190314",
    }
    if study.burned_in:
        values["BurnedInAnnotation"] = study.burned_in
    for keyword, value in values.items():
        setattr(dataset, keyword, value)


def _report(study: Study, number: int) -> str:
    patient = study.patient
    given_away = {
        "full": f"{patient.given} {patient.family}",
        "family": patient.family,
        "given": patient.given,
        "record": patient.record,
        "referrer": _REFERRER,
        "hospital": _HOSPITAL,
        "slash_date": "03/02/2019",
        "long_date": "14 March 2019",
    }
    return (
        f"PATIENT NAME: {patient.family.upper()}, {patient.given.upper()}\nDATE OF BIRTH: {patient.born}\n"
        f"MRN: {patient.record}\nACCESSION: ACC{900 + number}\nREFERRING PHYSICIAN: Dr. {_REFERRER}\n"
        f"EXAM: examination of 03/14/2019\n\nFINDINGS: {study.findings.format(**given_away)}\n\n"
        f"IMPRESSION: {study.impression.format(**given_away)}\n\nSIGNED: {_DOCTOR}, MD 03/15/2019 08:12"
    )


def _identifiers() -> set[str]:
    people = {part for study in STUDIES for part in (study.patient.family, study.patient.given, study.patient.record)}
    people |= {*_DOCTOR.split(), *_REFERRER.split(), "Brigid"}
    rest = {"03/02/2019", "14 March 2019", "March 3, 2018", "555-014-2237", "Oak Tree", "4:15", "saintbrigid"}
    return people | rest | {study.patient.record.removeprefix("MRN-") for study in STUDIES}
