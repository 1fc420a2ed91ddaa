"""Problems as values: joined, allowed by kind, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.base.contract import UserError
from stages.formats.problems import ProblemLog, Problems, problem

A, B = Path("a.json"), Path("b.json")


def test_entries_with_the_same_fault_are_one_problem() -> None:
    log = ProblemLog(A)
    log.add("missing", "caption of image", 3)
    log.add("malformed", "entry number", 7, "no image_id")
    log.add("missing", "caption of image", 8)
    assert [found["entries"] for found in log.problems().to_json()] == [[3, 8], [7]]
    assert log.problems().summary() == (
        "a.json: 2 missing: caption of image 3 8, 1 malformed (no image_id): entry number 7"
    )


def test_a_problem_that_was_read_twice_counts_once() -> None:
    one = problem("missing", A, "caption of image", [3])
    other = problem("missing", B, "caption of image", [3])
    assert one + other + one == one + other
    assert (one + other).summary() == "a.json: 1 missing: caption of image 3; b.json: 1 missing: caption of image 3"


def test_a_kind_can_be_allowed() -> None:
    found = problem("missing", A, "image", [1]) + problem("duplicate", A, "image", [2])
    with pytest.raises(UserError, match=r"^a\.json: 1 duplicate: image 2; correct it, or else$"):
        found.without("missing").raise_if_any(", or else")
    found.without("missing").without("duplicate").raise_if_any()


def test_without_entries_there_is_no_problem() -> None:
    assert not problem("missing", A, "image", [])
    assert not Problems()
    Problems().raise_if_any()


def test_a_message_names_ten_entries_and_breaks_no_line() -> None:
    found = problem("unknown", A, "image", ["x\ny", *range(14)])
    assert found.summary() == r"a.json: 15 unknown: image x\ny 0 1 2 3 4 5 6 7 8 and 5 more"
