"""Names that nothing announces: what their spelling and their neighbours tell, in any capitalisation."""

from __future__ import annotations

import pytest

from stages.ingest.medical.deidentify import Scrubber
from stages.ingest.medical.name_scores import folded, name_score
from stages.ingest.medical.uncued_names import UncuedNameFinder


@pytest.mark.parametrize(
    "text",
    [
        "Film of {} shows low volumes.",
        "{} could not stand for the lateral view.",
        "Lungs are clear. {} coughed throughout.",
        "The Films Of {} Show Clear Lungs And No Effusion.",
        "No acute findings ({}, {}).",
        "The images of {}, {} and {} were mixed up.",
    ],
)
@pytest.mark.parametrize("change", [str, str.lower, str.upper])
def test_bare_names_are_found_in_any_capitalisation(text: str, change: type[str]) -> None:
    for name in ("Siddiqui", "Wojciechowski", "Bērziņš", "O'Halloran", "Nakamura", "Al-Qahtani", "Odhiambo"):
        written = change(text.format(name, name, name))
        assert change(name) not in Scrubber()(written), written


def test_particles_and_saints_go_with_their_name_and_possessives_stay() -> None:
    scrub = Scrubber()
    assert scrub("film of van den heuvel, rotated") == "film of [name], rotated"
    assert scrub("Film of ST. CLAIR reviewed.") == "Film of [name] reviewed."
    assert scrub("siddiqui's film is rotated") == "[name]'s film is rotated"


@pytest.mark.parametrize(
    "text",
    [
        "perihilar bronchograms, hypointense foci and pneumonthorax on the saggital view",
        "LUL and NIV as before; GERD is known. Procalcitonin was high.",
        "THE RIGHT HEMIDIAPHRAGM IS ELEVATED BY A SUBPULMONIC EFFUSION.",
        "Salter-Harris II fracture, Foley catheter, Wilms tumor, sign of Naclerio.",
        "a bell-shaped chest, a stone in the bladder, snow on the field, cross-table view",
        "IL6 40.5 pg/ml, SpO2 98%, his/her, L4/L5, HbA1c",
    ],
)
def test_words_misspelt_words_and_abbreviations_are_no_names(text: str) -> None:
    assert Scrubber()(text) == text


def test_a_word_that_is_a_name_too_counts_as_one_beside_a_name() -> None:
    finder = UncuedNameFinder(1.0)
    assert finder.spans("joy is seen") == []
    assert finder.spans("joy siddiqui is seen") == [(0, 3), (4, 12)]


def test_the_threshold_trades_names_for_words_and_null_leaves_the_rules() -> None:
    text = "film of tuilagi shows the stomac"
    found = [len(UncuedNameFinder(threshold).spans(text)) for threshold in (-1.0, 0.0, 9.0)]
    assert found == [2, 1, 0]
    assert Scrubber(name_threshold=None)(text.replace("tuilagi", "siddiqui")) == text.replace("tuilagi", "siddiqui")


def test_configured_words_are_kept() -> None:
    assert Scrubber()("film of siddiqui") == "film of [name]"
    assert Scrubber(keep=["Siddiqui"])("film of siddiqui") == "film of siddiqui"


def test_scores_do_not_depend_on_accents_apostrophes_and_capitals() -> None:
    assert folded("O’Łukasz-Çelik") == "olukasz-celik"
    assert name_score("Çelik") == name_score("CELIK") == name_score("celik") > 2
    assert name_score("consolidation") < -3 < 3 < name_score("Kowalczyk")
    # A name and a word: in between.
    assert name_score("consolidation") < name_score("young") < name_score("Kowalczyk")
