"""A verdict's reason in words, with the value and the bound it met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "side": "shorter side",
    "aspect_ratio": "long side / short side",
    "bytes": "image file's bytes",
    "nsfw": "NSFW score",
    "unsafe": "unsafe score of the list",
    "watermark": "watermark score of the list",
    "similarity": "CLIP similarity of the list",
    "similarity_l14": "CLIP L/14 similarity of the list",
    "clip_similarity": "CLIP similarity",
    "words": "words in the caption",
    "characters": "characters in the caption",
    "text_coverage": "share of the picture covered by text",
    "repetition": "share of repeated words",
    "letters": "share of letters",
    "digits": "share of digits",
    "language_score": "score of the language",
}


def explain(
    reason: str, detail: str, signals: Mapping[str, Any], attempt: Mapping[str, Any], selection: Mapping[str, Any]
) -> str:
    """One line for people. `signals` are those of image and pair, `selection` the config that judged them."""
    group, _, name = reason.partition(".")
    rules: Mapping[str, Any] = selection.get("rules", {})
    match group:
        case "":
            return "kept"
        case "forgotten":
            return "forgotten on request (`pairmill forget`); no run brings it back"
        case "download":
            error = attempt.get("error")
            return f"its image could not be downloaded: {name}" + (f" ({error})" if error else "")
        case "rule":
            return _rule(name, signals, rules)
        case "benchmark":
            return f"its image is in the benchmark {name}" + (f" ({detail})" if detail else "")
        case "benchmark_text":
            return f"its caption is in the benchmark {name}" + (f" ({detail})" if detail else "")
        case "duplicate":
            likeness = "the same pixels" if name == "exact" else "nearly the same picture"
            return f"{likeness} as image {detail}, which is kept" if detail else f"{likeness} as an image that is kept"
        case "mixture":
            return "its source already filled its share of `selection.mixture`"
        case "cap":
            return "its source already had `selection.max_pairs`"
    return reason.replace("_", " ")


def _rule(name: str, signals: Mapping[str, Any], rules: Mapping[str, Any]) -> str:
    if name == "undecodable":
        return "the image does not decode"
    if name == "language":
        found = signals.get("language") or "none"
        return f"language {found} is not among {', '.join(rules.get('languages') or [])}"
    end, _, column = name.partition("_")
    if end in ("top", "bottom") and column in rules.get("fractions", {}):
        fraction = rules["fractions"][column]
        share, within = fraction.get(end), fraction.get("within", "all")
        value = _shown(signals.get(column))
        return f"{_named(column)} {value} is not in the {end} {share:g}" + (" of its source" * (within == "source"))
    if end in ("min", "max") and rules.get(name) is not None:
        value = _value(name, column, signals)
        bound = _bound(rules[name], signals)
        if value is None:
            return f"{_named(column)} was not measured, and `rules.missing` is drop"
        return f"{_named(column, end)} {_shown(value)} {'<' if end == 'min' else '>'} {_shown(bound)}"
    if name in rules.get("where", {}):
        bounds = {key: value for key, value in rules["where"][name].items() if value is not None}
        listed = ", ".join(f"{'in' if key == 'among' else key} {value}" for key, value in bounds.items())
        return f"{_named(name)} {_shown(signals.get(name))} is outside the bounds of `rules.where`: {listed}"
    return f"rule {name}"


def _value(rule: str, column: str, signals: Mapping[str, Any]) -> Any:
    if column == "side":
        sides = [side for name in ("width", "height") if (side := signals.get(name)) is not None]
        if len(sides) < 2:
            return None
        return min(sides) if rule.startswith("min") else max(sides)
    return signals.get(column)


def _bound(bound: Any, signals: Mapping[str, Any]) -> Any:
    """The bound that held for this pair, where there is one per language."""
    if isinstance(bound, Mapping):
        return bound.get(signals.get("language") or "other", bound.get("other"))
    return bound


def _named(column: str, end: str = "min") -> str:
    if column == "side" and end == "max":
        return "longer side"
    return _NAMES.get(column, column.replace("_", " "))


def _shown(value: Any) -> str:
    if value is None:
        return "(not measured)"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
