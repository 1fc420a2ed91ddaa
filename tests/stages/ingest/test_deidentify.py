"""De-identification of text: what must go, and what must stay."""

from __future__ import annotations

import pytest

from stages.ingest.medical.deidentify import Scrubber


@pytest.mark.parametrize(
    ("text", "gone"),
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
def test_identifiers_go(text: str, gone: str) -> None:
    assert gone not in Scrubber()(text)


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
def test_findings_stay_word_for_word(text: str) -> None:
    assert Scrubber()(text) == text


def test_what_the_file_states_is_found_anywhere_in_any_case() -> None:
    scrub = Scrubber(names=["Fontaine^Margaret^A", "Ng^Li"], numbers=["MRN-0048213", "St. Brigid's Ward"])
    text = "MARGARET came with fontaine; Ng saw 0048213 at st. brigid's ward. Li, lifting and angina stay."
    assert scrub(text) == "[name] came with [name]; [name] saw [record] at [record]. [name], lifting and angina stay."
    assert scrub.knows("CHEST FONTAINE")
    assert not scrub.knows("CHEST")
