"""Renders the data report: `report.html`, one file that needs nothing else, and `report.json` with its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from stages.contract import Inputs
from stages.select.config import SelectConfig
from stages.select.report.charts import histogram
from stages.select.report.samples import Samples
from stages.select.verdict import Decision

_TITLES = {
    "shorter_side": "Shorter side, pixels",
    "aspect_ratio": "Long side / short side",
    "words": "Words per caption",
}
_LANGUAGES = 12


def write(decision: Decision, numbers: Mapping[str, Any], config: SelectConfig, inputs: Inputs, folder: Path) -> None:
    """Write both files into `folder`."""
    text = json.dumps(numbers, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", "utf-8")

    samples = Samples(decision, config, inputs)
    environment = Environment(
        loader=PackageLoader("stages.select.report", "."),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = _share
    environment.filters["why"] = _why
    page = environment.get_template("report.html.j2").render(
        numbers=numbers,
        charts={
            name: (_TITLES[name], histogram(h["edges"], h["fetched"], h["kept"], _TITLES[name]))
            for name, h in numbers["distributions"].items()
        },
        languages=numbers["languages"][:_LANGUAGES],
        other_languages=_rest(numbers["languages"][_LANGUAGES:]),
        samples=samples.by_reason(),
        clusters={kind: samples.clusters(found["clusters"]) for kind, found in numbers["duplicates"].items()},
        leaks={name: samples.leaks(found["found"]) for name, found in numbers["benchmarks"].items()},
        settings=json.dumps(numbers["selection"], indent=2),
    )
    (folder / "report.html").write_text(page, "utf-8")


def _share(part: int, whole: int) -> str:
    """A percentage that does not round something to nothing, nor nearly all to all."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.1f}%".replace(".0%", "%")


def _why(reason: str) -> str:
    """A reason in words under the heading of its group: `rule.min_side` -> `min side`; a benchmark keeps its name."""
    group, _, name = reason.partition(".")
    return name if group == "benchmark" else (name or group).replace("_", " ")


def _rest(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "languages": len(rows),
        "pairs": sum(r["pairs"] for r in rows),
        "kept": sum(r["kept"] for r in rows),
    }
