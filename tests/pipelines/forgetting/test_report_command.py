"""`pairmill report` writes the page of the newest selection, and holds it against another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

STRICT = "++selection.rules.min_words=6"


def reselected(mill: Any) -> None:
    mill.make(STRICT, stages=("select",))


def test_the_page_card_and_figures_are_written_where_asked(made: Any, tmp_path: Path) -> None:
    done = made.command("report", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"report.html", "report.json", "data_card.md"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_against_the_previous_selection(mill: Any) -> None:
    before = {uid for uid, row in mill.verdicts().items() if row["keep"]}
    first = mill.of("select")
    reselected(mill)
    mill.settings = (*mill.settings, STRICT)
    done = mill.command("report", "--against", "previous")
    assert done.returncode == 0, done.stderr
    (folder,) = (mill.root / "reports").iterdir()
    figures = json.loads((folder / "compare.json").read_text())
    assert figures["against"] == first.fingerprint
    assert figures["settings"] == [["selection.rules.min_words", "3", "6"]]
    kept = figures["totals"]["kept"]
    assert kept[0] == len(before)
    assert kept[1] == kept[0] - figures["totals"]["newly_dropped"] + figures["totals"]["newly_kept"]
    assert figures["totals"]["kept_in_both"] == kept[0] - figures["totals"]["newly_dropped"]
    moves = {(move["from"], move["to"]): move["pairs"] for move in figures["moves"]}
    assert moves["kept", "rule.min_words"] > 0
    assert sum(s["newly_dropped"] for s in figures["sources"].values()) == figures["totals"]["newly_dropped"]
    page = (folder / "report.html").read_text()
    compared = page.partition('id="compare"')[2].partition('id="accounts"')[0]
    assert "data:image" in compared
    assert "rule.min_words" in compared
    # A fingerprint's first digits and a folder mean the same.
    for which in (first.fingerprint[:10], first.url):
        assert mill.command("report", "--against", which).returncode == 0
        assert json.loads((folder / "compare.json").read_text()) == figures


def test_nothing_private_is_compared_but_counts(mill: Any) -> None:
    reselected(mill)
    mill.settings = (*mill.settings, STRICT)
    assert mill.command("report", "--against", "previous").returncode == 0
    text = "".join(p.read_text() for p in (mill.root / "reports").rglob("*") if p.is_file())
    for row in mill.pairs("demo_medical"):
        assert row["caption"] not in text
        assert row["path"] not in text
    figures = json.loads(next((mill.root / "reports").rglob("compare.json")).read_text())
    assert "demo_medical" in figures["sources"]
    assert "demo_medical" not in {row["source"] for side in figures["shown"].values() for row in side}


def test_mistakes_are_one_line_that_says_what_there_is(made: Any, tmp_path: Path) -> None:
    for which, words in (("previous", "this is the first selection"), ("beef", "no selection; give `previous`")):
        done = made.command("report", "--against", which, "--out", str(tmp_path))
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
