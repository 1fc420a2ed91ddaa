"""Verdicts over tables made by hand: the order of reasons, benchmarks, caps, and what a forgotten pair is."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.tombstones import Tombstones
from stages.base.uids import as_hex
from stages.select.config import SelectConfig, SelectionConfig
from tests.stages.select.selecting import select, whole

SELECTION = SelectionConfig.model_validate(
    {"name": "t", "rules": {"min_side": 100, "min_words": 3}, "duplicates": {"near": {"radius": 4}}}
)
CONFIG = SelectConfig(selection=SELECTION)


def config_of(**selection: object) -> SelectConfig:
    return SelectConfig(selection=SelectionConfig.model_validate({"name": "t", **selection}))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_every_pair_has_one_verdict_and_a_copy_names_an_image_that_is_kept(random_index, seed: int) -> None:
    index = random_index(seed)
    selected = select(index, CONFIG)
    table = selected.verdicts()
    assert table.column_names == ["uid", "image_uid", "source", "keep", "reason", "detail", "repeats"]
    images, pairs = whole(index, "images"), whole(index, "pairs")
    uids, statuses = as_hex(images["image_uid"]).to_pylist(), images["status"].to_pylist()
    first = np.repeat([it.first_image for it in index.ranges], [it.pairs for it in index.ranges])
    of_pair = dict(zip(as_hex(pairs["uid"]).to_pylist(), (pairs["image"].to_numpy() + first).tolist(), strict=True))
    rows = table.to_pylist()
    assert [row["uid"] for row in rows] == sorted(of_pair)
    kept = {row["image_uid"] for row in rows if row["keep"]}
    for row in rows:
        image = of_pair[row["uid"]]
        assert row["image_uid"] == uids[image]
        assert row["keep"] == (row["reason"] == "") == (row["repeats"] == 1)
        assert row["reason"].startswith("download.") == (statuses[image] != "success")
        assert (row["detail"] in kept) if row["reason"].startswith("duplicate.") else row["detail"] == ""
    assert sum(selected.counts().values()) == len(rows)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_no_two_kept_images_are_copies_and_no_copy_is_dropped_for_a_dropped_pair(random_index, seed: int) -> None:
    index = random_index(seed)
    kept = {row["image_uid"] for row in select(index, CONFIG).verdicts().to_pylist() if row["keep"]}
    images = whole(index, "images")
    there = pa.array([uid in kept for uid in as_hex(images["image_uid"]).to_pylist()])
    left = images.filter(there)
    groups, classes = left["group"].to_pylist(), left["class_phash"].to_pylist()
    assert len(set(groups)) == len(groups)
    assert len(set(classes)) == len(classes)
    near = [edge for number in range(len(index.ranges)) for edge in index.near("phash", number).to_pylist()]
    shown = set(classes)
    assert not [
        edge
        for edge in near
        if edge["distance"] <= 4
        and (edge["difference"] <= 2.0 or edge["relative_difference"] <= 0.07)
        and {edge["first"], edge["second"]} <= shown
    ]


def test_every_kind_of_reason_comes_in_the_stated_order(make_index) -> None:
    images = [
        {"status": "http_404"},  # 0
        {"decoded": False},  # 1
        {"width": 50},  # 2: too small, in a benchmark too
        {},  # 3: in two benchmarks, and a copy of 5
        {},  # 4: its caption is in a benchmark
        {"width": 900},  # 5
        {"group": 5, "bytes": 5},  # 6: pixels of 5
        {"bytes": 5},  # 7: near 5
        {},  # 8
    ]
    index = make_index(
        images,
        [*({"image": n} for n in range(9)), {"image": 5, "words": 1}],
        near=[{"first": 3, "second": 5, "distance": 2}, {"first": 5, "second": 7, "distance": 2}],
        exact=[{"image": 3, "benchmark": "vqa", "file": "v.png"}, {"image": 2, "benchmark": "vqa", "file": "v.png"}],
        benchmark_near=[{"image": 3, "benchmark": "coco", "file": "c.png", "distance": 3}],
        texts=[{"pair": 4, "benchmark": "coco", "overlap": 0.7}, {"pair": 8, "benchmark": "coco", "overlap": 0.69}],
    )
    found = [(row["reason"], row["detail"]) for row in select(index, CONFIG).verdicts().to_pylist()]
    assert found == [
        ("download.http_404", ""),
        ("rule.undecodable", ""),
        ("rule.min_side", ""),
        ("benchmark.coco", "c.png"),
        ("benchmark_text.coco", ""),
        ("", ""),
        ("duplicate.exact", f"{5:032x}"),
        ("duplicate.near", f"{5:032x}"),
        ("", ""),
        ("rule.min_words", ""),
    ]
    forgotten = Tombstones(pairs=frozenset(f"{n:032x}" for n in range(9)), images=frozenset([f"{5:032x}"]))
    assert set(select(index, CONFIG, forgotten).reasons()) == {"forgotten"}


def test_what_a_benchmark_holds_is_listed_with_file_and_distance_but_not_for_a_private_source(make_index) -> None:
    index = make_index(
        [{}, {"group": 0}, {"source": 1}, {}, {}],
        [*({"image": n} for n in range(5)), {"image": 0}],
        sources={"web": False, "clinic": True},
        exact=[
            {"image": 0, "benchmark": "vqa", "file": "b.png"},
            {"image": 0, "benchmark": "vqa", "file": "a.png"},
            {"image": 2, "benchmark": "vqa", "file": "secret.png"},
        ],
        benchmark_near=[
            {"image": 0, "benchmark": "vqa", "file": "0.png", "distance": 0},
            {"image": 3, "benchmark": "vqa", "file": "far.png", "distance": 5},
            {"image": 3, "benchmark": "vqa", "file": "near.png", "distance": 4},
        ],
        texts=[{"pair": 4, "benchmark": "vqa", "overlap": 1.0}],
    )
    config = SelectConfig(selection=SelectionConfig(name="t"), private_sources=["clinic"])
    selected = select(index, config)
    listed = selected.contamination().to_pylist()
    assert [(int(r["uid"], 16), r["kind"], r["file"], r["distance"], r["overlap"]) for r in listed] == [
        (0, "exact", "a.png", 0, None),
        (1, "exact", "a.png", 0, None),
        (2, "exact", None, 0, None),
        (3, "near", "near.png", 4, None),
        (4, "text", None, None, 1.0),
        (5, "exact", "a.png", 0, None),
    ]
    assert {row["benchmark"] for row in listed} == {"vqa"}
    assert [row["source"] for row in listed] == ["web", "web", "clinic", "web", "web", "web"]
    assert selected.verdicts()["detail"].to_pylist() == ["a.png", "a.png", "", "near.png", "", "a.png"]


def test_decontamination_can_be_narrowed_and_turned_off(make_index) -> None:
    index = make_index(
        [{}, {}, {}],
        exact=[{"image": 0, "benchmark": "vqa", "file": "a.png"}],
        benchmark_near=[{"image": 1, "benchmark": "vqa", "file": "b.png", "distance": 4}],
        texts=[{"pair": 2, "benchmark": "vqa", "overlap": 0.8}],
    )

    def reasons(**contamination: object) -> list[str]:
        found = select(index, config_of(contamination=contamination)).reasons()
        return [reason.partition(".")[0] for reason in found]

    assert reasons() == ["benchmark", "benchmark", "benchmark_text"]
    assert reasons(exact=False) == ["", "benchmark", "benchmark_text"]
    assert reasons(near=None) == ["benchmark", "", "benchmark_text"]
    assert reasons(near={"radius": 3}, min_text_overlap=0.9) == ["benchmark", "", ""]
    assert reasons(min_text_overlap=None) == ["benchmark", "benchmark", ""]
    assert reasons(enabled=False) == ["", "", ""]


def test_a_source_is_capped_by_its_smallest_uids_after_everything_else(random_index) -> None:
    index = random_index(1, count=80)
    free = select(index, CONFIG).verdicts().to_pylist()
    limited = SELECTION.model_copy(update={"max_pairs": {"b": 2, "elsewhere": 0}})
    capped = select(index, SelectConfig(selection=limited)).verdicts().to_pylist()
    kept = [n for n, row in enumerate(free) if row["keep"] and row["source"] == "b"]
    assert len(kept) > 2
    assert [n for n in range(len(free)) if free[n] != capped[n]] == kept[2:]
    assert {(capped[n]["reason"], capped[n]["repeats"]) for n in kept[2:]} == {("cap", 0)}


def test_an_empty_index_gives_an_empty_selection(make_index) -> None:
    index = make_index([], [])
    assert not index.ranges
    assert select(index, CONFIG).counts() == {}
    assert select(index, CONFIG).report().numbers["totals"]["pairs"] == 0


@pytest.mark.parametrize("exact", [True, False])
def test_equal_pixels_fall_as_near_copies_where_exact_ones_are_not_looked_for(make_index, exact: bool) -> None:
    index = make_index([{}, {"group": 0, "width": 900}])
    config = config_of(duplicates={"exact": exact, "near": {}})
    kind = "exact" if exact else "near"
    found = [(row["reason"], row["detail"]) for row in select(index, config).verdicts().to_pylist()]
    assert found == [(f"duplicate.{kind}", f"{1:032x}"), ("", "")]


def test_a_copy_with_a_text_is_kept_before_one_of_an_image_only_source(make_index) -> None:
    index = make_index(
        [
            {"source": 1, "width": 900},  # 0: larger than its copies 1 and 2, but without a text
            {"group": 0},  # 1
            {"source": 1, "group": 0},  # 2
            {"source": 1, "width": 900},  # 3: near 4
            {},  # 4
            {"source": 1},  # 5: its copy 6 is lost to a rule on its caption
            {"group": 5},  # 6
            {"source": 1, "width": 900},  # 7: a copy of 8 in the same source
            {"source": 1, "group": 7},  # 8
        ],
        [*({"image": n} for n in range(6)), {"image": 6, "words": 1}, {"image": 7}, {"image": 8}],
        sources={"web": False, "images": False},
        near=[{"first": 3, "second": 4, "distance": 2}],
        image_only=["images"],
    )
    verdicts = select(index, CONFIG).verdicts().to_pylist()
    assert [(row["reason"], row["detail"]) for row in verdicts] == [
        ("duplicate.exact", f"{1:032x}"),
        ("", ""),
        ("duplicate.exact", f"{1:032x}"),
        ("duplicate.near", f"{4:032x}"),
        ("", ""),
        ("", ""),
        ("rule.min_words", ""),
        ("", ""),
        ("duplicate.exact", f"{7:032x}"),
    ]


def test_an_image_only_source_has_its_cap_its_share_and_its_benchmarks(make_index) -> None:
    index = make_index(
        [*({} for _ in range(4)), *({"source": 1} for _ in range(8))],
        sources={"web": False, "images": False},
        exact=[{"image": 4, "benchmark": "vqa", "file": "a.png"}],
        image_only=["images"],
    )
    selected = select(index, config_of(mixture={"images": {"share": 0.6, "epochs": 2}}))
    assert selected.reasons()[4] == "benchmark.vqa"
    shown = selected.repeats()
    assert (sum(shown[:4]), sum(shown[4:])) == (4, 6)
    capped = select(index, config_of(max_pairs={"images": 3}))
    assert sum(capped.repeats()[4:]) == 3
