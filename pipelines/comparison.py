"""A selection's report page with a section that compares it with another selection."""

from __future__ import annotations

import json
from typing import Any

from markupsafe import Markup

from pipelines.lineage import Lineage
from pipelines.provenance.find import located, rows
from pipelines.state import differences
from stages.base.artifact import Artifact
from stages.select.report.charts import histogram
from stages.select.report.compare import compare
from stages.select.report.page import COMPARE_LINK, COMPARE_SECTION, TITLES, environment
from stages.select.report.samples import ShownImage, picture, shortened


def with_comparison(
    page: str, old: Artifact, new: Artifact, lineage: Lineage, private: set[str]
) -> tuple[str, dict[str, Any]]:
    """The page of `new` with the section, and the section's figures.

    `private`: sources to treat as private besides those that either selection lists as such.
    """
    for artifact in (old, new):
        private = private | set(artifact.manifest["config"].get("private_sources", ()))
    figures = compare(old, new, private)
    figures["settings"] = [
        [key, _short(before), _short(after)]
        for key, before, after in differences(old.manifest["config"], new.manifest["config"])
    ]
    names = ("before", "after")
    section = (
        environment()
        .get_template("compare.html.j2")
        .render(
            c=figures,
            earlier=f"{old.manifest['config']['selection']['name']} ({old.fingerprint[:12]})",
            settings=figures["settings"],
            inputs=_inputs(old, new),
            charts=[
                (TITLES.get(n, n.replace("_", " ")), histogram(h["edges"], h["before"], h["after"], n, names))
                for n, h in figures["distributions"].items()
            ],
            came=_samples(figures["shown"]["came"], new, lineage),
            went=_samples(figures["shown"]["went"], old, lineage),
        )
    )
    page = page.replace(COMPARE_LINK, Markup('<a href="#compare">Compared</a>'), 1)
    return page.replace(COMPARE_SECTION, section, 1), figures


def _inputs(old: Artifact, new: Artifact) -> list[str]:
    before, after = old.manifest["inputs"], new.manifest["inputs"]
    return [role for role in after if before.get(role) != after[role]]


def _samples(chosen: list[dict[str, str]], select: Artifact, lineage: Lineage) -> list[ShownImage]:
    """Pictures and captions from the artifacts that the selection was made from, if they still exist."""
    held = {
        role: {a.manifest["config"]["name"]: a for a in lineage.inputs(select, role) if a is not None}
        for role in ("raw", "pairs")
    }
    found = []
    for row in chosen:
        raw, pairs = held["raw"].get(row["source"]), held["pairs"].get(row["source"])
        shown, caption = "", ""
        if raw is not None:
            for name, attempt in located(raw, "attempts-*.parquet", "image_uid", row["image_uid"]):
                if attempt["offset"] is not None:
                    number = int(name.removeprefix("attempts-").removesuffix(".parquet"))
                    shown = picture(raw, number, attempt["offset"], attempt["length"])
        if pairs is not None:
            listed = rows(pairs, "pairs-*.parquet", "image_uid", row["image_uid"])
            caption = next((pair["caption"] for pair in listed if pair["uid"] == row["uid"]), "")
        found.append(ShownImage(row["image_uid"], row["source"], shown, shortened(caption)))
    return found


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."
