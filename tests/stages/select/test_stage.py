"""The `select` stage over a real index of two public sources, a private one and a world with a benchmark."""

from __future__ import annotations

import re
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import ImageEnhance

from stages.base.pairs import image_uid, pair_uid
from stages.base.tombstones import Tombstones, domain_digest, url_digest
from stages.base.uids import as_hex
from stages.index.config import BenchmarkImages
from stages.index.reader import Index
from stages.select.config import SelectConfig, SelectionConfig
from stages.select.stage import Select

pytestmark = pytest.mark.usefixtures("ray_session")

SELECTION = SelectionConfig.model_validate(
    {
        "name": "test",
        "rules": {"min_side": 32, "max_aspect_ratio": 3.0, "min_words": 3, "languages": ["en"]},
        "duplicates": {"near": {}},
    }
)
SECRET = "patient Zebediah Quux has a fracture"
GOOD = "a photograph of a street in the city"


#: The selection all tests below read, made once: Ray Data takes seconds to start.
MADE: dict[str, Any] = {}


@pytest.fixture
def sources(measured, scene, as_bytes, world):
    """Makes the inputs, with so many partitions per source."""
    big, small = scene(10, 120, 120), scene(10, 120, 120).resize((108, 108))
    laion = [
        ("http://a/good", as_bytes(scene(1)), [GOOD, "two people walk down a street in the city"]),
        ("http://a/short", as_bytes(scene(2)), [GOOD, "street"]),
        ("http://a/german", as_bytes(scene(3)), ["ein Foto einer Straße in der Stadt"]),
        ("http://a/tiny", as_bytes(scene(4, 20, 40)), [GOOD]),
        ("http://a/wide", as_bytes(scene(5, 400, 40)), [GOOD]),
        ("http://a/gone", "http_404", [GOOD, "a second caption of what is gone"]),
        ("http://a/broken", b"GIF89a nothing", [GOOD]),
        ("http://a/big", as_bytes(big), [GOOD]),
        ("http://a/leak", as_bytes(scene(20)), [GOOD]),
        ("http://a/leak.jpg", as_bytes(ImageEnhance.Brightness(scene(21)).enhance(1.1), "JPEG", quality=85), [GOOD]),
    ]
    cc = [
        ("http://b/same", as_bytes(scene(1)), [GOOD]),
        ("http://b/same.bmp", as_bytes(scene(1), "BMP"), ["the street again, in another file format"]),
        ("http://b/small", as_bytes(small, "JPEG", quality=85), [GOOD]),
        ("http://b/opt", "opt_out", [GOOD]),
    ]
    clinic = [
        ("file-of-Zebediah.png", as_bytes(scene(30)), [SECRET]),
        ("copy-for-Zebediah.png", as_bytes(scene(30)), [SECRET]),
        ("leak-of-Zebediah.png", as_bytes(scene(22)), [SECRET]),
        ("unread-Zebediah.png", "missing_file", [SECRET]),
    ]

    def make(partitions: int):
        held_out = {f"images/{n}.png": as_bytes(scene(n)) for n in (20, 21, 22)}
        home = world({**held_out, "lists/a.txt": b"no image", "other/x.png": as_bytes(scene(1))})
        benchmarks = {"vqa": BenchmarkImages(images="world:demo/images")}
        return measured({"laion": laion, "cc": cc, "clinic": clinic}, partitions, benchmarks, [home], ["clinic"])

    return make


@pytest.fixture
def inputs(sources):
    if "inputs" not in MADE:
        MADE["inputs"] = sources(2)
    return MADE["inputs"]


@pytest.fixture
def config() -> SelectConfig:
    return SelectConfig(selection=SELECTION, private_sources=["clinic"])


@pytest.fixture
def selected(inputs, config, run_stage):
    if "selected" not in MADE:
        MADE["selected"] = run_stage(Select(config), inputs)
    return MADE["selected"]


def test_every_pair_gets_its_first_reason(selected, inputs, verdicts_of) -> None:
    of = verdicts_of(selected).of

    def a(name: str) -> list[tuple[str, str]]:
        return of(image_uid("laion", f"http://a/{name}"))

    def b(name: str) -> list[tuple[str, str]]:
        return of(image_uid("cc", f"http://b/{name}"))

    assert a("short") == [("", ""), ("rule.min_words", "")]
    assert a("german") == [("rule.language", "")]
    assert a("tiny") == [("rule.min_side", "")]
    assert a("wide") == [("rule.max_aspect_ratio", "")]
    assert a("gone") == [("download.http_404", "")] * 2
    assert a("broken") == [("rule.undecodable", "")]
    assert a("leak") == [("benchmark.vqa", "images/20.png")]
    assert a("leak.jpg") == [("benchmark.vqa", "images/21.png")]
    assert b("opt") == [("download.opt_out", "")]
    # Equal pixels: the BMP has more bytes and survives with its caption.
    winner = image_uid("cc", "http://b/same.bmp")
    assert b("same.bmp") == [("", "")]
    assert b("same") == [("duplicate.exact", winner)]
    assert a("good") == [("duplicate.exact", winner)] * 2
    assert a("big") == [("", "")]
    assert b("small") == [("duplicate.near", image_uid("laion", "http://a/big"))]

    listed = set()
    for artifact in inputs["pairs"]:
        for name in artifact.names("pairs-*"):
            listed |= set(pq.read_table(artifact.path(name))["uid"].to_pylist())
    assert set(verdicts_of(selected).rows) == listed


def test_verdicts_are_in_the_order_of_the_index_and_typed(selected, inputs) -> None:
    table = pq.read_table(selected.path("verdicts-00000.parquet"))
    assert table.column_names == ["uid", "image_uid", "source", "keep", "reason", "detail", "repeats"]
    assert table["uid"].to_pylist() == as_hex(Index(inputs["index"][0]).pairs(0)["uid"]).to_pylist()
    assert selected.read_json("ranges.json") == inputs["index"][0].read_json("ranges.json")
    for row in table.to_pylist():
        assert row["keep"] == (row["reason"] == "")


def test_counts_add_up(selected) -> None:
    counts = dict(selected.counts)
    assert counts.pop("pairs") == 21
    assert counts.pop("shown") == counts["kept"]
    assert sum(counts.values()) == 21


def test_attempts_of_each_source_are_accounted_for(selected) -> None:
    sources = selected.read_json("report.json")["sources"]
    assert all(source["attempts"]["accounted"] for source in sources.values())
    assert sources["laion"]["attempts"] == {
        "listed": 10,
        "tried": 10,
        "success": 9,
        "failures": {"http_404": 1},
        "measured": 9,
        "accounted": True,
    }
    assert [(step["step"], step["pairs"]) for step in sources["laion"]["funnel"]] == [
        ("listed", 13),
        ("fetched", 11),
        ("rules", 6),
        ("benchmarks", 4),
        ("duplicates", 2),
        ("cap", 2),
    ]


def test_what_a_benchmark_holds_is_listed_without_the_file_of_a_private_leak(selected, inputs) -> None:
    rows = pq.read_table(selected.path("contamination-00000.parquet")).to_pylist()
    web = {image_uid("laion", f"http://a/{name}") for name in ("leak", "leak.jpg")}
    clinic = image_uid("clinic", "leak-of-Zebediah.png")
    assert {(row["image_uid"], row["kind"], row["file"]) for row in rows if row["image_uid"] in web} == {
        (image_uid("laion", "http://a/leak"), "exact", "images/20.png"),
        (image_uid("laion", "http://a/leak.jpg"), "near", "images/21.png"),
    }
    assert [(row["kind"], row["file"]) for row in rows if row["image_uid"] == clinic] == [("exact", None)]
    assert len(rows) == selected.counts["dropped.benchmark.vqa"] == 3


@pytest.mark.parametrize("way", ["pairs", "images", "urls", "domains", "sha256"])
def test_what_was_forgotten_is_not_kept_whatever_earlier_stages_did(
    inputs, config, run_stage, tmp_path, way, verdicts_of
) -> None:
    url = "http://b/same.bmp"
    image = image_uid("cc", url)
    raw = pq.read_table(inputs["raw"][1].path("attempts-00000.parquet")).to_pylist()
    raw += pq.read_table(inputs["raw"][1].path("attempts-00001.parquet")).to_pylist()
    uid = pair_uid("cc", url, "the street again, in another file format")
    named = {
        "pairs": uid,
        "images": image,
        "urls": url_digest(url),
        "domains": domain_digest("b"),
        "sha256": next(row["sha256"] for row in raw if row["image_uid"] == image),
    }
    listed = tmp_path / "forgotten.json"
    listed.write_text(Tombstones(**{way: frozenset([named[way]])}).to_json())
    artifact = run_stage(Select(config), inputs, tombstones=listed)
    rows = verdicts_of(artifact).rows
    forgotten = {row["uid"] for row in rows.values() if row["reason"] == "forgotten"}
    assert uid in forgotten
    assert len(forgotten) == (4 if way == "domains" else 1) == artifact.counts["dropped.forgotten"]
    # Its copies are judged without it.
    kept = {row["image_uid"] for row in rows.values() if row["keep"]}
    assert image not in kept
    assert image_uid("laion", "http://a/good") in kept


def test_nothing_of_a_private_source_is_in_the_report(selected, inputs) -> None:
    page = selected.path("report.html").read_text("utf-8")
    figures = selected.path("report.json").read_text("utf-8")
    for text in (page, figures):
        assert "Zebediah" not in text
        assert "fracture" not in text
    assert "clinic" in page
    # Its leak is listed by uid, without a picture and without the name of the benchmark's image.
    leak = image_uid("clinic", "leak-of-Zebediah.png")
    assert leak in figures
    assert "images/22.png" not in page + figures
    assert blank(page, leak)


def test_a_public_copy_of_a_private_image_is_not_shown_beside_it(measured, scene, as_bytes, run_stage) -> None:
    images = {
        "clinic": [("private.png", as_bytes(scene(1, 128, 128)), [GOOD])],
        "web": [("http://w/1", as_bytes(scene(1, 128, 128).resize((120, 120))), [GOOD])],
    }
    config = SelectConfig(selection=SELECTION, private_sources=["clinic"])
    artifact = run_stage(Select(config), measured(images, private=["clinic"]))
    (cluster,) = artifact.read_json("report.json")["duplicates"]["near"]["clusters"]
    assert cluster == {"survivor": image_uid("clinic", "private.png"), "copies": [image_uid("web", "http://w/1")]}
    copies = artifact.path("report.html").read_text("utf-8").partition('id="copies"')[2]
    assert blank(copies, cluster["survivor"])
    assert blank(copies, cluster["copies"][0])


def blank(page: str, uid: str) -> bool:
    """Whether the first figure of an image has no picture."""
    before, _, _ = page.partition(f'title="{uid}"')
    figure = before.rpartition("<figure>")[2]
    return figure.strip().startswith('<div class="blank">') and "<img" not in figure


def test_the_page_needs_nothing_from_elsewhere(selected) -> None:
    page = selected.path("report.html").read_text("utf-8")
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "@import" not in page
    assert page.count("data:image/jpeg;base64,") >= 8
    assert "url(" not in page


def test_the_same_pairs_give_the_same_verdicts_however_they_are_partitioned(
    selected, sources, config, run_stage
) -> None:
    again = run_stage(Select(config), sources(5))
    for name in ("verdicts", "contamination"):
        both = (pq.read_table(artifact.path(f"{name}-00000.parquet")) for artifact in (selected, again))
        assert len({str(table.sort_by("uid").to_pylist()) for table in both}) == 1
    figures = [artifact.read_json("report.json") for artifact in (selected, again)]
    for found in figures:
        del found["inputs"]  # fingerprints of what was partitioned otherwise
    assert figures[0] == figures[1]


def test_equal_inputs_give_equal_bytes(selected, inputs, config, run_stage) -> None:
    assert run_stage(Select(config), inputs).manifest["files"] == selected.manifest["files"]


def test_a_selection_without_images_says_so_instead_of_failing(measured, run_stage) -> None:
    inputs = measured({"x": [("http://x/1", "http_404", [GOOD])]})
    artifact = run_stage(Select(SelectConfig(selection=SELECTION)), inputs)
    assert artifact.counts == {"pairs": 1, "kept": 0, "shown": 0, "dropped.download.http_404": 1}
    assert "No image of a public source was fetched" in artifact.path("report.html").read_text("utf-8")
