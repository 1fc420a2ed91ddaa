"""Every rule at its bound, the order of reasons, and the presets."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from pydantic import ValidationError

from stages.select.config import Rules, SelectionConfig
from stages.select.rules import first_failure, image_checks, pair_checks

PRESETS = sorted((Path(__file__).parents[3] / "conf" / "selection").glob("*.yaml"))

IMAGE = {"decoded": True, "bytes": 9000, "width": 300, "height": 200, "aspect_ratio": 1.5, "entropy": 5.0}
PAIR = {
    "characters": 20,
    "words": 5,
    "repetition": 0.0,
    "language": "en",
    "language_score": 0.9,
    "similarity": 0.3,
    "unsafe": 0.1,
    "watermark": 0.1,
}
FLOAT32 = ("entropy", "repetition", "language_score", "similarity", "unsafe", "watermark")


def reasons(rules: Rules, rows: list[dict], of_pairs: bool) -> list[str]:
    checks = pair_checks(rules) if of_pairs else image_checks(rules)
    table = pa.Table.from_pylist([{"id": str(n), **row} for n, row in enumerate(rows)])
    for name in FLOAT32:
        if name in table.column_names:
            place = table.column_names.index(name)
            table = table.set_column(place, name, table[name].cast(pa.float32()))
    failed = first_failure(table, checks, ["id"])
    assert failed.column_names == ["id", "failed"]
    return [checks[n].reason if n >= 0 else "" for n in failed["failed"].to_pylist()]


@pytest.mark.parametrize(
    ("rule", "bound", "on", "beyond"),
    [
        ("min_bytes", 5000, {"bytes": 5000}, {"bytes": 4999}),
        ("min_side", 200, {"width": 900, "height": 200}, {"width": 199, "height": 900}),
        ("max_side", 900, {"width": 900}, {"height": 901}),
        ("max_aspect_ratio", 3.0, {"aspect_ratio": 3.0}, {"aspect_ratio": 601 / 200}),
        ("min_entropy", 0.3, {"entropy": 0.3}, {"entropy": 0.2999}),
    ],
)
def test_bounds_on_images(rule: str, bound: float, on: dict, beyond: dict) -> None:
    rows = [{**IMAGE, **on}, {**IMAGE, **beyond}]
    assert reasons(Rules(**{rule: bound}), rows, of_pairs=False) == ["", f"rule.{rule}"]


@pytest.mark.parametrize(
    ("rule", "bound", "on", "beyond"),
    [
        ("min_characters", 6, {"characters": 6}, {"characters": 5}),
        ("max_characters", 6, {"characters": 6}, {"characters": 7}),
        ("min_words", 3, {"words": 3}, {"words": 2}),
        ("max_words", 256, {"words": 256}, {"words": 257}),
        ("max_repetition", 0.2, {"repetition": 0.2}, {"repetition": 0.2001}),
        ("min_language_score", 0.9, {"language_score": 0.9}, {"language_score": 0.8999}),
        ("min_similarity", 0.3, {"similarity": 0.3}, {"similarity": 0.2999}),
        ("max_unsafe", 0.5, {"unsafe": 0.5}, {"unsafe": 0.5001}),
        ("max_watermark", 0.8, {"watermark": 0.8}, {"watermark": 0.8001}),
    ],
)
def test_bounds_on_pairs(rule: str, bound: float, on: dict, beyond: dict) -> None:
    rows = [{**PAIR, **on}, {**PAIR, **beyond}]
    assert reasons(Rules(**{rule: bound}), rows, of_pairs=True) == ["", f"rule.{rule}"]


def test_languages_are_a_list_and_no_language_is_not_on_it() -> None:
    rows = [{**PAIR, "language": language} for language in ("en", "de", "fr", None)]
    assert reasons(Rules(languages=["en", "de"]), rows, of_pairs=True) == ["", "", "rule.language", "rule.language"]


def test_what_the_list_does_not_say_is_not_held_against_a_pair() -> None:
    rules = Rules(min_similarity=0.3, max_unsafe=0.5, max_watermark=0.8)
    rows = [PAIR, {**PAIR, "similarity": None, "unsafe": None, "watermark": None}]
    assert reasons(rules, rows, of_pairs=True) == ["", ""]


def test_the_first_rule_that_fails_gives_the_reason() -> None:
    rules = Rules(min_bytes=10_000, min_side=400, max_aspect_ratio=1.2)
    rows = [IMAGE, {**IMAGE, "bytes": 10_000}, {**IMAGE, "bytes": 10_000, "width": 400, "height": 400}]
    assert reasons(rules, rows, of_pairs=False) == ["rule.min_bytes", "rule.min_side", "rule.max_aspect_ratio"]


def test_an_image_that_does_not_decode_is_dropped_without_any_rule() -> None:
    nothing = {"decoded": False, "bytes": 10, "width": None, "height": None, "aspect_ratio": None, "entropy": None}
    assert reasons(Rules(), [IMAGE, nothing], of_pairs=False) == ["", "rule.undecodable"]


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_presets_validate(file: Path) -> None:
    text = file.read_text("utf-8")
    assert text.startswith("# @package selection\n")
    assert SelectionConfig.model_validate(yaml.safe_load(text)).name == file.stem


def test_published_numbers() -> None:
    def rules(name: str) -> dict:
        (file,) = [file for file in PRESETS if file.stem == name]
        return SelectionConfig.model_validate(yaml.safe_load(file.read_text("utf-8"))).rules.model_dump(
            exclude_none=True
        )

    assert rules("datacomp_basic") == {
        "min_side": 200,
        "max_aspect_ratio": 3.0,
        "min_characters": 6,
        "min_words": 3,
        "languages": ["en"],
    }
    assert rules("laion400m") == {"min_bytes": 5000, "min_characters": 5, "min_similarity": 0.3}
    cc12m = {"min_side": 401, "max_aspect_ratio": 2.5, "min_words": 3, "max_words": 256, "max_repetition": 0.2}
    assert rules("cc12m") == cc12m


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_aspect_ratio": 0.5},
        {"min_words": -1},
        {"min_words": 9, "max_words": 3},
        {"languages": []},
        {"max_repetition": 1.5},
        {"min_sides": 3},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Rules.model_validate(wrong)
