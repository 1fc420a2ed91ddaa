"""The report's figures against counting by hand, and what they say of private sources: counts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stages.select import report
from stages.select.config import SelectConfig, SelectionConfig
from stages.select.report.card import card
from stages.select.report.charts import histogram
from stages.select.report.codes import codes
from stages.select.report.page import charts, share
from stages.select.report.tables import tables
from tests.stages.select.selecting import Selected, select, whole

REPORT = Path(report.__file__).parent
SELECTION = SelectionConfig.model_validate(
    {"name": "test", "rules": {"min_side": 100, "languages": ["en"]}, "duplicates": {"near": {}}}
)


@pytest.fixture
def selected(make_index) -> Selected:
    images = [
        {"host": "a.org"},
        {"host": "a.org", "status": "http_404"},
        {"host": "a.org", "width": 50},
        {"host": "b.org", "status": "timeout"},
        {"host": "b.org", "status": "timeout"},
        {"host": "c.org", "group": 0},
        {"host": "c.org", "group": 0, "aspect_ratio": 9.0, "odd_signal": 3.0},
        {"source": 1, "host": None, "nsfw": 0.99},
        {"source": 1, "host": None, "status": "missing_file"},
    ]
    pairs = [
        *({"image": n} for n in range(len(images))),
        {"image": 0, "words": 200},
        {"image": 0, "language": "de"},
        {"image": 7, "language": None},
    ]
    index = make_index(images, pairs, sources={"web": False, "ward": True})
    return select(index, SelectConfig(selection=SELECTION, private_sources=["ward"]))


@pytest.fixture
def numbers(selected) -> dict[str, Any]:
    return selected.report().numbers


def test_every_pair_is_counted_once_by_its_reason(selected, numbers) -> None:
    verdicts = selected.verdicts().to_pylist()
    for name, source in numbers["sources"].items():
        reasons = Counter(row["reason"] for row in verdicts if row["source"] == name)
        assert source["kept_pairs"] == reasons.pop("")
        assert source["reasons"] == dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
        assert source["pairs"] == source["kept_pairs"] + reasons.total()
    assert numbers["totals"]["kept_pairs"] == sum(row["keep"] for row in verdicts)
    assert numbers["totals"]["kept_images"] == len({row["image_uid"] for row in verdicts if row["keep"]})
    assert numbers["totals"]["listed_images"] == 9
    assert numbers["totals"]["fetched_images"] == 5


def test_attempts_of_a_source_add_up(numbers) -> None:
    attempts = numbers["sources"]["web"]["attempts"]
    assert attempts["failures"] == {"timeout": 2, "http_404": 1}
    assert attempts["listed"] == attempts["tried"] == 7
    assert (attempts["success"], attempts["measured"], attempts["accounted"]) == (4, 4, True)


def test_hosts_come_by_what_they_lost_and_private_ones_not_at_all(numbers) -> None:
    hosts = numbers["hosts"]
    assert [(h["host"], h["images"], h["success"], h["failed"]) for h in hosts["top"]] == [
        ("b.org", 2, 0, 2),
        ("a.org", 3, 2, 1),
        ("c.org", 2, 2, 0),
    ]
    assert hosts["top"][0]["reasons"] == {"timeout": 2}
    assert (hosts["hosts"], hosts["without_success"]) == (3, 1)


def test_a_funnel_ends_with_what_is_kept(numbers) -> None:
    for source in numbers["sources"].values():
        left = [step["pairs"] for step in source["funnel"]]
        assert left == sorted(left, reverse=True)
        assert (left[0], left[-1]) == (source["pairs"], source["kept_pairs"])


def test_distributions_hold_every_measured_value_once(selected, numbers) -> None:
    found = numbers["distributions"]
    images, pairs = (whole(selected.passes.job.index, name) for name in ("images", "pairs"))
    for name, table in (("shorter_side", None), ("aspect_ratio", images), ("words", pairs)):
        h = found[name]
        measured = images["decoded"].drop_null() if table is None else table[name].drop_null()
        assert sum(h["fetched"]) == h["measured"] == len(measured)
        assert all(k <= f for f, k in zip(h["fetched"], h["kept"], strict=True))
    assert found["shorter_side"]["fetched"][1] == 1  # the image 50 pixels wide
    assert found["words"]["fetched"][-1] == 1  # the caption of 200 words, in the last, open bin
    # A signal that nobody knew of: one value, in bins of its own.
    odd = {"edges": [3.0], "fetched": [1], "kept": [0], "measured": 1, "of": "image", "only": 3.0}
    assert found["odd_signal"] == odd
    assert "only" not in found["words"]


def test_one_value_is_a_bar_among_room_for_others_and_said_in_words(numbers) -> None:
    title, note, chart = charts(numbers["distributions"])["odd_signal"]
    assert (title, note) == ("odd signal", "1 image measured, all 3")
    (bar,) = re.findall(r'<rect class="all" x="([\d.]+)" .*?width="([\d.]+)"', chart)
    left, width = map(float, bar)
    assert width <= 70
    assert left + width / 2 == pytest.approx(210, abs=1)  # in the middle
    many = charts({"x": {"edges": [*range(12)], "fetched": [1] * 12, "kept": [1] * 12, "measured": 12, "of": "pair"}})
    assert many["x"][2].count("<rect") == 24
    assert max(float(x) for x in re.findall(r'class="all" x="([\d.]+)"', many["x"][2])) > 380


def test_copies_are_told_by_their_survivor_and_size(numbers) -> None:
    exact = numbers["duplicates"]["exact"]
    assert (exact["images"], exact["groups"], exact["sizes"]) == (2, 1, {"3": 1})
    (cluster,) = exact["clusters"]
    assert len(cluster["copies"]) == 2


def test_shares_of_the_mixture_sum_to_one(numbers) -> None:
    for column in ("share_listed", "share_kept", "share_epoch"):
        assert sum(s[column] for s in numbers["sources"].values()) == pytest.approx(1, abs=1e-5)


def test_languages_count_pairs_that_were_measured(selected, numbers) -> None:
    rows = {row["language"]: (row["pairs"], row["kept"]) for row in numbers["languages"]}
    assert rows["de"] == (1, 0)
    assert rows["none"] == (1, 0)
    assert sum(n for n, _ in rows.values()) == sum(whole(selected.passes.job.index, "pairs")["measured"].to_pylist())


def full(numbers: dict[str, Any]) -> dict[str, Any]:
    marks = {
        "index": "f" * 64,
        "pairs": {"web": "a" * 64, "ward": "b" * 64},
        "raw": {"web": "c" * 64, "ward": "d" * 64},
    }
    rejects = {
        n: {"rows": 9, "pairs": 8, "repeats": 0, "rejects": 1, "reasons": {"no_url": 1}} for n in ("web", "ward")
    }
    licences = [{"licence": "CC | BY", "pairs": 8, "kept": 3}]
    return {**numbers, "inputs": marks, "rejects": rejects, "licences": licences}


def test_the_card_states_sizes_sources_and_limits(numbers) -> None:
    text = card(full(numbers))
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert 'pretty_name: "test"' in head
    assert "- n<1K" in head
    assert "| web | 9 | 7 | 4 |" in body
    assert "ward (private)" in body
    assert "CC \\| BY" in body
    assert "`download.timeout`" in body
    assert "No benchmark was looked for" in body
    assert "a" * 64 in body
    tables_of_body = [line for line in body.splitlines() if line.startswith("|")]
    assert all(line.count("|") - line.count("\\|") >= 3 for line in tables_of_body)


def test_tables_are_in_the_format_that_mlflow_shows(numbers) -> None:
    import pandas

    for name, table in tables(full(numbers)).items():
        frame = pandas.DataFrame(table["data"], columns=table["columns"])
        assert json.loads(frame.to_json(orient="split", index=False)) == json.loads(json.dumps(table)), name


def test_codes_follow_the_values_and_not_the_dictionary() -> None:
    one = pa.chunked_array([pa.array(["b", None, "a"]).dictionary_encode(), pa.array(["c", "b"]).dictionary_encode()])
    found = codes(one)
    assert found.names == ["a", "b", "c"]
    assert found.of.tolist() == [1, -1, 0, 2, 1]
    assert codes(pa.chunked_array([], pa.string())).of.tolist() == []


def test_a_chart_escapes_its_label_and_shows_the_larger_series_whole() -> None:
    chart = str(histogram([0, 1], [1, 2], [8, 4], 'a "<b>"', ("then", "now")))
    assert "<b>" not in chart
    heights = [float(part.split('"')[0]) for part in chart.split('height="')[1:]]
    assert max(heights) == pytest.approx(130)


def test_shares_do_not_round_to_nothing_nor_to_all() -> None:
    assert [share(*n) for n in ((0, 5), (1, 5000), (4999, 5000), (1, 3), (5, 5), (1, 0))] == [
        "0%",
        "<0.1%",
        ">99.9%",
        "33.3%",
        "100%",
        "–",
    ]


def test_files_of_ones_own_have_no_host_and_are_counted_all_the_same(make_index) -> None:
    index = make_index([{"host": None}, {"host": None, "status": "missing_file"}], [{"image": 0}, {"image": 1}])
    numbers = select(index, SelectConfig(selection=SELECTION)).report().numbers
    assert numbers["totals"]["listed_images"] == 2
    assert numbers["hosts"] == {"hosts": 0, "without_success": 0, "not_asked": 0, "top": []}


def test_a_host_that_was_never_contacted_was_not_asked(make_index) -> None:
    statuses = {
        "good.test": "success",
        "late.test": "timeout",
        "shut.test": "connection_refused",
        "rules.test": "robots",
        "nowhere.test": "dns",
        "inside.test": "forbidden_address",
        "odd.test": "invalid_url",
        "gone.test": "forgotten",
    }
    index = make_index([{"host": host, "status": status} for host, status in statuses.items()])
    hosts = select(index, SelectConfig(selection=SELECTION)).report().numbers["hosts"]
    assert (hosts["hosts"], hosts["without_success"], hosts["not_asked"]) == (4, 3, 4)
    assert {host["host"] for host in hosts["top"]} == set(statuses)  # what was lost is listed all the same


def test_every_head_of_a_column_stands_as_its_text_does() -> None:
    """Columns of text stand left and fit a narrow page below their numbers; all others stand right."""
    page, style = ((REPORT / name).read_text("utf-8") for name in ("report.html.j2", "report.css"))
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        heads = re.findall(r"<th([^>]*)>", table)[1:]
        cells = re.findall(r"<td([^>]*)>", table)
        texts = [cell for cell in cells if "text" in cell and "colspan" not in cell]
        assert sum("text" in head for head in heads) == len(texts)
        assert not texts or table.startswith('<table class="why">')
    assert re.search(r"th\.text, td\.text \{ text-align: left", style)
    assert re.search(r"max-width: 760px.*\.why td\.text \{ grid-column: 1 / -1", style, re.DOTALL)


def test_an_image_only_source_is_marked_and_counts_in_no_figure_of_texts(make_index) -> None:
    index = make_index([{}, {"source": 1}, {"source": 1}], sources={"web": False, "ward": True}, image_only=["ward"])
    numbers = select(index, SelectConfig(selection=SELECTION, private_sources=["ward"])).report().numbers
    assert numbers["totals"]["kept_pairs"] == 3
    assert numbers["totals"]["kept_without_text"] == 2
    assert [source.get("image_only") for source in numbers["sources"].values()] == [None, True]
    assert numbers["languages"] == [{"language": "en", "pairs": 1, "kept": 1}]
    assert numbers["distributions"]["words"]["measured"] == 1
    text = card(full(numbers))
    assert "3 image-text pairs (2 of them images without a text) on 3 images" in text
    assert "| ward (private) (image-only) |" in text


def test_figures_without_an_image_only_source_do_not_speak_of_any(numbers) -> None:
    assert "kept_without_text" not in numbers["totals"]
    assert not any("image_only" in source for source in numbers["sources"].values())
