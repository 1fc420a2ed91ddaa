"""De-identification of text: identifiers are removed, findings are kept."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stages.ingest.medical.deidentify import Scrubber, stated_identifiers

BENCHMARKS = Path(__file__).resolve().parents[4] / "benchmarks"


@pytest.fixture(scope="module")
def planting() -> ModuleType:
    """The benchmark's module, with its sentences and its measure of recall."""
    name = "planted_reports"
    for name in ("planted_reports", "deidentification"):
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("Discussed with Dr. Harold Pembroke by phone.", "Pembroke"),
        ("Mrs O'Neill-Vargas was seen again.", "Vargas"),
        ("Signed by: SMITH, JOHN MD", "SMITH"),
        ("Dictated by Sarah Miller, MD", "Miller"),
        ("Read by Jürgen Müller", "Müller"),
        ("Findings were called to Nurse Patel.", "Patel"),
        ("Patient: Alice Jones has pain.", "Jones"),
        ("Compared with 03/14/2019.", "2019"),
        ("Compared with 2019-03-14 10:22.", "2019"),
        ("Compared with 14.3.19.", "14.3"),
        ("On March 3, 2018 there was less.", "March"),
        ("Seen 14 March 2019 and before.", "March"),
        ("Since May 2011 unchanged.", "2011"),
        ("Stable since 5/6.", "5/6"),
        ("Known since 2009.", "2009"),
        ("MRN: 0048213 was read.", "0048213"),
        ("accession no. A-99X1 was read.", "99X1"),
        ("SSN 123-45-6789.", "6789"),
        ("Call 555-014-2237.", "2237"),
        ("Call +1 (555) 014-2237.", "2237"),
        ("Pager 40213.", "40213"),
        ("Write to a.b@hospital.example soon.", "hospital"),
        ("See https://pacs.example/x?id=1 for it.", "pacs"),
        ("Lives at 12 Oak Tree Lane, Springfield, IL 62704.", "Oak"),
        ("Sent by Mercy General Hospital today.", "Mercy"),
        ("A 93-year-old woman.", "93"),
        ("At 4:15 PM it was seen.", "4:15"),
        ("Film 20190314001.", "20190314001"),
    ],
)
def test_identifiers_are_removed(text: str, identifier: str) -> None:
    assert identifier not in Scrubber()(text)


@pytest.mark.parametrize(
    "text",
    [
        "A 12 x 8 mm nodule in the right upper lobe, 3.5 cm from the hilum.",
        "Degeneration at L4-5 and T12-L1; L4/5 is narrowed by 1/2.",
        "T1 and T2 weighted images; correlate with MRI or CT.",
        "There may 3 small nodules be seen; the march of time.",
        "Heart size is normal. No pleural effusion. Mild COPD.",
        "A 45-year-old man with chest pain for 2 days.",
        "Foley catheter, ET tube 4 cm above the carina. Segments II to IV.",
        "SUV of 12.5, density of 1024 HU, 95% stenosis.",
    ],
)
def test_findings_are_kept_word_for_word(text: str) -> None:
    assert Scrubber()(text) == text


def test_identifiers_stated_by_the_file_are_removed_anywhere_in_any_case() -> None:
    scrub = Scrubber(names=["Fontaine^Margaret^A", "Ng^Li"], numbers=["MRN-0048213", "St. Brigid's Ward"])
    text = "MARGARET came with fontaine; Ng saw 0048213 at st. brigid's ward. Li, lifting and angina stay."
    assert scrub(text) == "[name] came with [name]; [name] saw [record] at [record]. [name], lifting and angina stay."
    assert scrub.contains_known("CHEST FONTAINE")
    assert not scrub.contains_known("CHEST")


@pytest.mark.parametrize("half", ["tuning", "held_out"])
def test_recall_is_as_documented(planting: ModuleType, half: str) -> None:
    sentences = list(planting.planted(half, 12, seed=7))
    cleaned = planting.ours([sentence.text for sentence in sentences])
    recall = planting.recall(sentences, cleaned)
    assert recall["all"] >= 0.99, planting.misses(sentences, cleaned)[:5]
    assert min(recall.values()) >= 0.97, recall
    assert planting.carriers_lost(sentences, cleaned) <= 0.01


@pytest.mark.parametrize("half", ["tuning", "held_out"])
def test_eponyms_devices_and_measurements_are_not_names(planting: ModuleType, half: str) -> None:
    clean = [" ".join(text.split()) for text in planting.CLEAN[half]]
    assert [Scrubber(name_threshold=None)(text) for text in clean] == clean
    lost, _ = planting.words_lost(clean, planting.ours(clean))
    assert lost <= (0.005 if half == "held_out" else 0)


@pytest.mark.parametrize(("half", "least"), [("tuning", 0.97), ("held_out", 0.96)])
def test_recall_of_names_that_nothing_announces_is_as_documented(planting: ModuleType, half: Any, least: float) -> None:
    sentences = list(sys.modules["planted_names"].uncued(half, 2, seed=7))
    texts = [sentence.text for sentence in sentences]
    shares = planting.recall(sentences, planting.ours(texts))
    assert shares["all"] >= least, shares
    assert min(shares.values()) >= 0.85, shares
    before = planting.recall(sentences, [Scrubber(name_threshold=None)(text) for text in texts])
    assert max(before[form] for form in ("capitals", "heading", "small letters")) < 0.1, before
    hard = list(planting.planted("hard", 12, seed=7))
    assert planting.recall(hard, planting.ours([sentence.text for sentence in hard]))["name"] >= 0.88


def test_real_notes_keep_their_words(planting: ModuleType, shared: Path) -> None:
    import json

    notes = sorted({entry["report"] for entry in json.loads((shared / "data/cxr/meta.json").read_text("utf-8"))})
    lost, _ = planting.words_lost(notes, planting.ours(notes))
    assert lost < 0.005  # two in three of them are dates, correctly


@pytest.mark.parametrize(
    "text",
    [
        "Discussed with ICU team. Sent to Pathology.",
        "Reviewed with CT and MRI. Correlate with PET.",
        "SpO2 85%, GGOs and C-reactive protein (CRP).",
        "Right Lower Lobe Opacity Is Seen With Small Effusion",
        "MR Brain shows MS plaques; MR angiography is normal.",
    ],
)
def test_departments_formulas_and_headings_are_not_names(text: str) -> None:
    assert Scrubber()(text) == text


def test_configured_words_are_kept() -> None:
    text = "The tip of the Zephyrine is unchanged."
    assert Scrubber()(text) == "The tip of the [name] is unchanged."
    assert Scrubber(keep=["Zephyrine"])(text) == text


def test_names_of_a_report_s_header_and_footer_are_removed_from_its_sections() -> None:
    report = (
        "PATIENT NAME: FONTAINE, MARGARET   MRN: AB-0048213\nAttending: Present\nFINDINGS: fontaine improves.\n"
        "Dictated by: Sarah Miller, MD on 3/4\nSigned: ___\n"
    )
    names, numbers = stated_identifiers(report)
    assert names == ["FONTAINE MARGARET", "Sarah Miller"]
    assert numbers == ["AB-0048213"]
    assert Scrubber(names, numbers)("margaret fontaine, 0048213, present") == "[name], [record], present"


def test_a_name_is_removed_in_other_spellings_and_scripts() -> None:
    scrub = Scrubber(names=["Müller^Jürgen", "Yamada^Tarou=山田^太郎", "Nuñez"])
    assert scrub("mueller and MULLER, nunez") == "[name] and [name]"
    assert "山田" not in scrub("患者山田太郎です")
    assert scrub("Mu\u0308ller".lower()) == "[name]"
