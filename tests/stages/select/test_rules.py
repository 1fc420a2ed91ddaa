"""Every rule at its bound, bounds on any column, shares by rank, and the presets."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from stages.base.contract import UserError
from stages.index.reader import Index
from stages.select.config import Rules, SelectConfig, SelectionConfig
from tests.stages.select.selecting import select

PRESETS = sorted((Path(__file__).parents[3] / "conf" / "selection").glob("*.yaml"))


def reasons(index: Index, **rules: Any) -> list[str]:
    """The reason of every pair, in the order of their uids."""
    config = SelectConfig(selection=SelectionConfig(name="t", rules=Rules.model_validate(rules)))
    return select(index, config).reasons()


@pytest.mark.parametrize(
    ("rule", "bound", "on", "beyond"),
    [
        ("min_bytes", 5000, {"bytes": 5000}, {"bytes": 4999}),
        ("min_side", 200, {"width": 900, "height": 200}, {"width": 199, "height": 900}),
        ("max_side", 900, {"width": 900}, {"height": 901}),
        ("max_aspect_ratio", 3.0, {"aspect_ratio": 3.0}, {"aspect_ratio": 601 / 200}),
        ("min_entropy", 0.3, {"entropy": 0.3}, {"entropy": 0.2999}),
        ("min_sharpness", 20, {"sharpness": 20.0}, {"sharpness": 19.9}),
        ("max_nsfw", 0.3, {"nsfw": 0.3}, {"nsfw": 0.3001}),
        ("max_text_coverage", 0.3, {"text_coverage": 0.3}, {"text_coverage": 0.3001}),
        ("min_faces", 1, {"faces": 1}, {"faces": 0}),
        ("max_faces", 1, {"faces": 1}, {"faces": 2}),
    ],
)
def test_bounds_on_images(make_index: Callable[..., Index], rule: str, bound: float, on: dict, beyond: dict) -> None:
    assert reasons(make_index([on, beyond]), **{rule: bound}) == ["", f"rule.{rule}"]


@pytest.mark.parametrize(
    ("rule", "bound", "on", "beyond"),
    [
        ("min_characters", 6, {"characters": 6}, {"characters": 5}),
        ("max_characters", 6, {"characters": 6}, {"characters": 7}),
        ("min_words", 3, {"words": 3}, {"words": 2}),
        ("max_words", 256, {"words": 256}, {"words": 257}),
        ("max_repetition", 0.2, {"repetition": 0.2}, {"repetition": 0.2001}),
        ("min_letters", 0.5, {"letters": 0.5}, {"letters": 0.4999}),
        ("max_digits", 0.5, {"digits": 0.5}, {"digits": 0.5001}),
        ("min_language_score", 0.9, {"language_score": 0.9}, {"language_score": 0.8999}),
        ("min_similarity", 0.3, {"similarity": 0.3}, {"similarity": 0.2999}),
        ("min_similarity_l14", 0.3, {"similarity_l14": 0.3}, {"similarity_l14": 0.2999}),
        ("min_clip_similarity", 0.3, {"clip_similarity": 0.3}, {"clip_similarity": 0.2999}),
        ("min_aesthetic", 5.0, {"aesthetic": 5.0}, {"aesthetic": 4.999}),
        ("max_unsafe", 0.5, {"unsafe": 0.5}, {"unsafe": 0.5001}),
        ("max_watermark", 0.8, {"watermark": 0.8}, {"watermark": 0.8001}),
    ],
)
def test_bounds_on_pairs(make_index: Callable[..., Index], rule: str, bound: float, on: dict, beyond: dict) -> None:
    index = make_index([{}, {}], [{"image": 0, **on}, {"image": 1, **beyond}])
    assert reasons(index, **{rule: bound}) == ["", f"rule.{rule}"]


def test_languages_are_a_list_and_no_language_is_not_on_it(make_index: Callable[..., Index]) -> None:
    index = make_index([{}], [{"image": 0, "language": language} for language in ("en", "de", "fr", None)])
    assert reasons(index, languages=["en", "de"]) == ["", "", "rule.language", "rule.language"]


def test_a_language_that_is_hardly_more_than_a_guess_drops_no_caption(make_index: Callable[..., Index]) -> None:
    found = [("pl", 0.32), ("pl", 0.4), ("en", 0.1), (None, 0.0), ("pl", None), ("pl", float("nan"))]
    index = make_index([{}], [{"image": 0, "language": code, "language_score": score} for code, score in found])
    other = "rule.language"
    assert reasons(index, languages=["en"], language_confidence=0.4) == ["", other, "", other, "", ""]
    assert reasons(index, languages=["en"]) == [other, other, "", other, other, other]


def test_a_caption_in_another_language_is_dropped_for_that_and_not_for_what_follows_from_it(
    make_index: Callable[..., Index],
) -> None:
    chinese = {"language": "zh", "language_score": 0.97, "words": 1, "characters": 5, "letters": 0.1}
    unsure = {**chinese, "language_score": 0.2}
    index = make_index([{}], [{"image": 0, **chinese}, {"image": 0, **unsure}])
    rules = {"min_characters": 6, "min_words": 3, "min_letters": 0.5, "min_language_score": 0.5, "languages": ["en"]}
    assert reasons(index, **rules, language_confidence=0.4) == ["rule.language", "rule.min_characters"]


def test_a_similarity_may_be_bounded_by_language(make_index: Callable[..., Index]) -> None:
    values = [("en", 0.28), ("en", 0.27), ("de", 0.27), ("de", 0.25), (None, 0.25), ("en", None), (None, None)]
    index = make_index([{}], [{"image": 0, "language": code, "similarity": value} for code, value in values])
    low = "rule.min_similarity"
    assert reasons(index, min_similarity={"en": 0.28, "other": 0.26}) == ["", low, "", low, low, "", ""]
    assert reasons(index, min_similarity={"en": 0.28}) == ["", low, "", "", "", "", ""]


def test_a_pair_without_a_value_is_dropped_only_where_configured(make_index: Callable[..., Index]) -> None:
    silent = {"similarity": None, "unsafe": None, "watermark": math.nan}
    index = make_index([{}, {"nsfw": None}], [{"image": 0}, {"image": 0, **silent}, {"image": 1}])
    rules = {"min_similarity": 0.3, "max_unsafe": 0.5, "max_watermark": 0.8, "max_nsfw": 0.5}
    assert reasons(index, **rules) == ["", "", ""]
    assert reasons(index, **rules, missing="drop") == ["", "rule.min_similarity", "rule.max_nsfw"]
    assert reasons(index, max_watermark=0.8, missing="drop") == ["", "rule.max_watermark", ""]


def test_any_column_has_bounds_also_one_of_a_family_nobody_here_knows(make_index: Callable[..., Index]) -> None:
    index = make_index(
        [{"haziness": 0.2}, {"haziness": 0.9}, {"format": "PNG"}, {"haziness": None}],
        [{"image": n, "sentiment": float(n)} for n in range(4)],
    )
    assert reasons(index, where={"haziness": {"max": 0.5}}) == ["", "rule.haziness", "", ""]
    assert reasons(index, where={"haziness": {"max": 0.5, "missing": "drop"}}) == ["", *["rule.haziness"] * 3]
    assert reasons(index, where={"format": {"in": ["JPEG"]}}) == ["", "", "rule.format", ""]
    assert reasons(index, where={"sentiment": {"min": 1, "max": 2}}) == ["rule.sentiment", "", "", "rule.sentiment"]


@pytest.mark.parametrize(
    ("rules", "without", "message"),
    [
        ({"min_clip_similarity": 0.3}, ["clip_similarity"], r"`clip_similarity`; .*signals\.clip\.model`"),
        ({"max_nsfw": 0.3}, ["nsfw"], r"rules\.max_nsfw: .*`nsfw`; add `nsfw` to `signals\."),
        ({"min_similarity": {"en": 0.3}}, ["language"], r"min_similarity: .*`language`; add `language` to"),
        ({"where": {"sharpnes": {"min": 3}}}, [], r"where\.sharpnes: .*did you mean sharpness\?"),
        ({"fractions": {"haziness": {"top": 0.5}}}, [], r"fractions\.haziness: no source was measured"),
        ({"where": {"format": {"min": 3}}}, [], r"where\.format: the column holds string"),
        ({"where": {"width": {"in": ["wide"]}}}, [], r"where\.width\.in=\['wide'\]: the column holds int32"),
        ({"fractions": {"language": {"top": 0.5}}}, [], r"fractions\.language: the column holds string"),
        ({"where": {"group": {"min": 3}}}, [], r"where\.group: no source was measured"),
    ],
)
def test_a_rule_on_what_was_not_measured_is_refused(make_index, rules: dict, without: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        reasons(make_index([{}], without=without), **rules)


def test_the_first_rule_that_fails_gives_the_reason(make_index: Callable[..., Index]) -> None:
    index = make_index([{"bytes": 9000}, {}, {"width": 400, "height": 400}, {"width": 900, "height": 900}])
    index = make_index(
        [{"bytes": 9}, {}, {"width": 400, "height": 400}, {"width": 500, "height": 500, "aspect_ratio": 1.0}],
        [{"image": n, "words": 1} for n in range(4)],
    )
    rules = {"where": {"words": {"min": 2}}, "min_words": 2, "min_bytes": 10, "min_side": 400, "max_aspect_ratio": 1.2}
    assert reasons(index, **rules) == [
        "rule.min_bytes",
        "rule.min_side",
        "rule.max_aspect_ratio",
        "rule.min_words",
    ]


def test_an_image_that_does_not_decode_is_dropped_without_any_rule(make_index: Callable[..., Index]) -> None:
    assert reasons(make_index([{}, {"decoded": False}])) == ["", "rule.undecodable"]


def test_the_best_share_is_counted_over_all_that_was_fetched(make_index: Callable[..., Index]) -> None:
    # Ten fetched pairs, of which two fail a bound: DataComp's share is of the ten.
    images: list[dict] = [{} for _ in range(10)] + [{"status": "http_404"}]
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    pairs: list[dict] = [{"image": n, "similarity": score} for n, score in enumerate(scores)] + [{"image": 10}]
    pairs[0]["words"] = 1
    pairs[5]["words"] = 1
    index = make_index(images, pairs)
    low, short = "rule.top_similarity", "rule.min_words"
    rules = {"min_words": 2, "fractions": {"similarity": {"top": 0.3}}}
    assert reasons(index, **rules) == [short, "", "", low, low, short, *[low] * 4, "download.http_404"]
    rules["fractions"] = {"similarity": {"top": 0.5, "of": "passed"}}
    assert reasons(index, **rules) == [short, "", "", "", "", short, *[low] * 4, "download.http_404"]


def test_a_share_is_exact_and_ties_go_to_the_smaller_uid(make_index: Callable[..., Index]) -> None:
    index = make_index([{}], [{"image": 0, "similarity": 0.3} for _ in range(10)])
    assert reasons(index, fractions={"similarity": {"top": 0.3}}) == [""] * 3 + ["rule.top_similarity"] * 7
    assert reasons(index, fractions={"similarity": {"bottom": 0.29}}) == [""] * 2 + ["rule.bottom_similarity"] * 8


def test_a_share_may_be_taken_within_each_source_and_of_images(make_index: Callable[..., Index]) -> None:
    images = [{"source": n % 2, "sharpness": float(n)} for n in range(8)]
    index = make_index(images, sources={"a": False, "b": False})
    low = "rule.top_sharpness"
    assert reasons(index, fractions={"sharpness": {"top": 0.5}}) == [low] * 4 + [""] * 4
    found = reasons(index, fractions={"sharpness": {"top": 0.25, "within": "source"}})
    assert found == [low] * 6 + [""] * 2
    index = make_index([{"source": int(n > 5), "sharpness": float(n)} for n in range(8)], sources={"a": 0, "b": 0})
    found = reasons(index, fractions={"sharpness": {"top": 0.5, "within": "source"}})
    assert found == [low, low, low, "", "", "", low, ""]


def test_a_pair_without_a_score_is_not_ranked(make_index: Callable[..., Index]) -> None:
    index = make_index([{}], [{"image": 0, "similarity": value} for value in (0.1, None, 0.2)])
    assert reasons(index, fractions={"similarity": {"top": 0.5}}) == ["rule.top_similarity", "", ""]
    found = reasons(index, missing="drop", fractions={"similarity": {"top": 0.5}})
    assert found == ["rule.top_similarity", "rule.top_similarity", ""]


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_presets_validate(file: Path) -> None:
    text = file.read_text("utf-8")
    assert text.startswith("# @package selection\n")
    assert SelectionConfig.model_validate(yaml.safe_load(text)).name == file.stem


def test_published_numbers() -> None:
    def rules(name: str) -> dict:
        (file,) = [file for file in PRESETS if file.stem == name]
        found = SelectionConfig.model_validate(yaml.safe_load(file.read_text("utf-8"))).rules
        return found.model_dump(exclude_defaults=True, exclude_none=True)

    basic = {"min_side": 200, "max_aspect_ratio": 3.0, "min_characters": 6, "min_words": 3, "languages": ["en"]}
    assert rules("datacomp_basic") == {**basic, "language_confidence": 0.4}
    assert rules("datacomp_clip30") == {"fractions": {"similarity_l14": {"top": 0.3}}}
    assert rules("laion400m") == {"min_bytes": 5000, "min_characters": 5, "min_similarity": 0.3}
    assert rules("laion5b") == {
        "min_bytes": 5000,
        "min_characters": 5,
        "min_similarity": {"en": 0.28, "other": 0.26},
        "max_unsafe": 0.5,
        "max_watermark": 0.8,
    }
    assert rules("cc3m") == {"min_side": 401, "max_aspect_ratio": 2.0}
    cc12m = {"min_side": 401, "max_aspect_ratio": 2.5, "min_words": 3, "max_words": 256, "max_repetition": 0.2}
    assert rules("cc12m") == cc12m


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_aspect_ratio": 0.5},
        {"min_words": -1},
        {"min_words": 9, "max_words": 3},
        {"min_faces": 9, "max_faces": 3},
        {"languages": []},
        {"max_repetition": 1.5},
        {"min_sides": 3},
        {"min_similarity": {}},
        {"min_similarity": {"en": 3}},
        {"where": {"a": {}}},
        {"where": {"a": {"in": []}}},
        {"where": {"a": {"in": ["x"], "min": 2}}},
        {"where": {"a": {"min": 3, "max": 2}}},
        {"fractions": {"a": {"top": 0}}},
        {"fractions": {"a": {"top": 0.3, "bottom": 0.3}}},
        {"fractions": {"a": {}}},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Rules.model_validate(wrong)


TEXT_RULES = {
    "min_characters": 5,
    "min_words": 3,
    "max_repetition": 0.5,
    "min_letters": 0.2,
    "languages": ["en"],
    "min_language_score": 0.5,
    "min_similarity": {"en": 0.28, "other": 0.26},
    "min_clip_similarity": 0.2,
    "where": {"digits": {"max": 0.5}, "letters": {"min": 0.1, "missing": "drop"}},
    "fractions": {"similarity_l14": {"top": 0.5}},
}


@pytest.mark.parametrize("missing", ["pass", "drop"])
def test_rules_on_text_neither_drop_nor_spare_an_image_without_one(
    make_index: Callable[..., Index], missing: str
) -> None:
    index = make_index(
        [{"source": 1}, {"source": 1, "width": 50}, {"source": 1}, {"source": 1}, {}, {}],
        [
            {"image": 0},
            {"image": 1},
            {"image": 2, "unsafe": 0.9},
            {"image": 3, "aesthetic": None},
            {"image": 4, "similarity_l14": 0.9},
            {"image": 5, "words": 1},
        ],
        sources={"web": False, "images": False},
        image_only=["images"],
    )
    rules = {**TEXT_RULES, "missing": missing, "min_side": 100, "max_unsafe": 0.5, "min_aesthetic": 1.0}
    config = SelectConfig(selection=SelectionConfig.model_validate({"name": "t", "rules": rules}))
    assert select(index, config).reasons() == [
        "",
        "rule.min_side",
        "rule.max_unsafe",
        "" if missing == "pass" else "rule.min_aesthetic",  # which is of the image, not of its text
        "",
        "rule.min_words",
    ]
