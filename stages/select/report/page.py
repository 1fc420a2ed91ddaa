"""Writes the data report: `report.html`, a self-contained page; `report.json`, its figures; the data card; and the same
figures as tables for MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from stages.select.job import Passes
from stages.select.report.card import card
from stages.select.report.charts import histogram
from stages.select.report.list_figures import licences, rejects
from stages.select.report.samples import Samples
from stages.select.report.tables import tables

if TYPE_CHECKING:
    from stages.select.report.figures import DataReport

TITLES = {
    "shorter_side": "Shorter side, pixels",
    "aspect_ratio": "Long side / short side",
    "bytes": "Bytes of the image file",
    "brightness": "Brightness, 0 to 255",
    "contrast": "Contrast, deviation of the luminance",
    "entropy": "Entropy of the luminance, bits",
    "sharpness": "Sharpness, variance of the Laplacian",
    "nsfw": "NSFW score",
    "text_coverage": "Share of the picture covered by text",
    "faces": "Faces",
    "words": "Words per caption",
    "characters": "Characters per caption",
    "repetition": "Share of repeated words",
    "language_score": "Score of the language",
    "letters": "Share of letters",
    "digits": "Share of digits",
    "longest_word": "Characters of the longest word",
    "listed_width": "Width as listed, pixels",
    "listed_height": "Height as listed, pixels",
    "similarity": "CLIP similarity, as listed",
    "similarity_l14": "CLIP L/14 similarity, as listed",
    "clip_similarity": "CLIP similarity, measured",
    "unsafe": "Unsafe, as listed",
    "watermark": "Watermark, as listed",
    "aesthetic": "Aesthetic score",
}
_LANGUAGES = 12
_HOSTS = 15

#: Where `pairmill report --against` puts its section.
COMPARE_LINK, COMPARE_SECTION = "<!-- link to the comparison -->", "<!-- comparison -->"


def write(passes: Passes, report: DataReport, folder: Path) -> None:
    """Write `report.html`, `report.json`, `data_card.md` and `tables/*.json` into `folder`.

    `report` is the result of :func:`stages.select.report.figures.figures`; figures that need the lists are added here.
    """
    job = passes.job
    index, inputs = job.index, job.inputs
    numbers = {
        **report.numbers,
        "rejects": rejects(inputs, index.sources),
        "licences": licences(passes),
        "inputs": {
            "index": index.artifact.fingerprint,
            "pairs": {name: a.fingerprint for name, a in zip(index.sources, inputs["pairs"], strict=True)},
            "raw": {name: a.fingerprint for name, a in zip(index.sources, inputs["raw"], strict=True)},
        },
    }
    text = json.dumps(numbers, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", "utf-8")
    (folder / "data_card.md").write_text(card(numbers), "utf-8")
    (folder / "tables").mkdir(exist_ok=True)
    for name, table in tables(numbers).items():
        (folder / "tables" / f"{name}.json").write_text(json.dumps(table, ensure_ascii=False) + "\n", "utf-8")
    samples = Samples(job, report.rows)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            numbers=numbers,
            charts=charts(numbers["distributions"]),
            languages=numbers["languages"][:_LANGUAGES],
            other_languages=_rest(numbers["languages"][_LANGUAGES:]),
            hosts=numbers["hosts"]["top"][:_HOSTS],
            samples=samples.by_reason(report.samples),
            clusters={kind: samples.clusters(copies["clusters"]) for kind, copies in numbers["duplicates"].items()},
            leaks={name: samples.leaks(benchmark["found"]) for name, benchmark in numbers["benchmarks"].items()},
            settings=json.dumps(numbers["selection"], indent=2),
            compare_link=Markup(COMPARE_LINK),
            compare_section=Markup(COMPARE_SECTION),
        )
    )
    (folder / "report.html").write_text(page, "utf-8")


def environment() -> Environment:
    """The Jinja environment of the report, with its filters; all output is escaped."""
    templates = Environment(
        loader=PackageLoader("stages.select.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["share"] = share
    templates.filters["why"] = _why
    return templates


def charts(distributions: Mapping[str, Any]) -> dict[str, tuple[str, str, Markup]]:
    """Signal -> title, a note with the number measured, histogram."""
    drawn = {}
    for name, h in distributions.items():
        title = TITLES.get(name, name.replace("_", " "))
        note = f"{h['measured']:,} {h['of']}{'' if h['measured'] == 1 else 's'} measured"
        note += f", all {h['only']:g}" if "only" in h else ""
        drawn[name] = (title, note, histogram(h["edges"], h["fetched"], h["kept"], title))
    return drawn


def share(part: int, whole: int) -> str:
    """A percentage that never rounds a part to 0% or to 100%."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.1f}%".replace(".0%", "%")


def _why(reason: str) -> str:
    """A reason in words, without its group: `rule.min_side` -> `min side`; names of benchmarks are unchanged."""
    group, _, name = reason.partition(".")
    if group in ("benchmark", "benchmark_text"):
        return name if group == "benchmark" else f"{name}, its texts"
    return (name or group).replace("_", " ")


def _rest(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "languages": len(rows),
        "pairs": sum(r["pairs"] for r in rows),
        "kept": sum(r["kept"] for r in rows),
    }
