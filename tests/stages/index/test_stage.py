"""The `index` stage over two public sources, a private one and a world with two benchmarks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ImageOps

from stages.base.contract import UserError
from stages.base.pairs import image_uid, pair_uid
from stages.index.config import IndexConfig
from stages.index.schema import PAIRS, images_schema
from stages.index.stage import BuildIndex

pytestmark = pytest.mark.usefixtures("ray_session")

LEAKED = "a brown dog runs over the wet sand of a beach at night"
QUESTION = "what is the man in the red jacket on the left holding in his hand"
CONFIG = IndexConfig.model_validate(
    {
        "search_radius": {"phash": 8, "phash_d4": 4},
        "crops": True,
        "ngram": 8,
        "benchmarks": {
            "vqa": {"images": "world:w/images", "texts": ["world:w/vqa.json"], "image_pattern": "{image_id}.png"},
            "captions": {"images": "world:w/other"},
        },
        "private_sources": ["clinic"],
    }
)
#: The index most tests below read, made once.
MADE: dict[str, Any] = {}


@pytest.fixture
def inputs(measured, scene, as_bytes, world):
    if "inputs" not in MADE:
        scaled = scene(10, 120, 120).resize((108, 108))
        web = [
            ("http://User:x@A.example:80/1?q=/", as_bytes(scene(1)), [LEAKED, "short"]),
            ("https://b.example./same", as_bytes(scene(1), "BMP"), ["again"]),
            ("http://a.example/2", as_bytes(scene(10, 120, 120)), ["x"]),
            ("http://a.example/gone", "http_404", ["x", QUESTION]),
            ("http://a.example/broken", b"GIF89a nothing", ["x"]),
            ("http://a.example/leak", as_bytes(scene(20)), ["x"]),
            ("http://a.example/unlisted", as_bytes(scene(22)), ["x"]),
        ]
        list_ = [
            ("http://c.example/scaled", as_bytes(scaled, "JPEG", quality=85), ["y"]),
            ("http://c.example/mirrored", as_bytes(ImageOps.mirror(scene(10, 120, 120))), ["y"]),
            ("http://c.example/leak", as_bytes(scene(21).resize((90, 90))), ["y"]),
            ("http://c.example/crop", as_bytes(ImageOps.mirror(scene(20).crop((4, 0, 96, 90)))), ["y"]),
            ("http://c.example/border", as_bytes(ImageOps.expand(scene(21), 5)), ["y"]),
        ]
        clinic = [("http://clinic.example/1", as_bytes(scene(1)), ["private"])]
        MADE["inputs"] = measured({"web": web, "list": list_, "clinic": clinic})
        questions = [
            {"image_id": 20, "question_id": 1, "question": QUESTION},
            {"image_id": 21, "question_id": 2, "question": LEAKED.upper().replace(" wet", ", wet") + "?"},
        ]
        files = {f"images/{n}.png": as_bytes(scene(n)) for n in (20, 21, 22)}
        files |= {"other/a.png": as_bytes(scene(20)), "vqa.json": json.dumps({"questions": questions}).encode()}
        MADE["inputs"]["worlds"] = [world(files)]
    return MADE["inputs"]


@pytest.fixture
def artifact(inputs, run_stage):
    if "artifact" not in MADE:
        MADE["artifact"] = run_stage(BuildIndex(CONFIG), inputs)
    return MADE["artifact"]


@pytest.fixture
def index(artifact, whole):
    return whole(artifact)


@pytest.fixture
def row(index):
    uids = index.images["image_uid"].to_pylist()
    return lambda source, url: uids.index(image_uid(source, url))


def parts_of(images) -> list[int]:
    """As `fetched_source` deals images out to two parts."""
    return [int(uid[:4], 16) % 2 for uid in images["image_uid"].to_pylist()]


def test_every_image_and_pair_has_its_row(index, inputs) -> None:
    images, pairs = index.images, index.pairs
    (it,) = index.index.ranges
    assert it.parts == tuple((n, f"{part:05d}") for n in range(3) for part in range(2))
    assert (it.images, it.pairs) == (images.num_rows, pairs.num_rows)
    first = images_schema(["phash", "phash_d4"])
    for schema, table in ((first, index.index.images(0)), (PAIRS, index.index.pairs(0))):
        assert [table.schema.field(n) for n in range(len(schema))] == list(schema)
    order = list(zip(images["source"].to_pylist(), parts_of(images), images["image_uid"].to_pylist(), strict=True))
    assert order == sorted(order)
    order = list(zip(pairs["image"].to_pylist(), pairs["uid"].to_pylist(), strict=True))
    assert order == sorted(order)
    listed = {}
    for number, artifact in enumerate(inputs["pairs"]):
        for name in artifact.names("pairs-*"):
            for pair in pq.read_table(artifact.path(name)).to_pylist():
                listed[pair["uid"]] = (pair["image_uid"], number)
    for pair in pairs.to_pylist():
        uid, number = listed.pop(pair["uid"])
        assert images["image_uid"][pair["image"]].as_py() == uid
        assert pair["source"] == images["source"][pair["image"]].as_py() == number
    assert not listed
    assert index.index.sources == ["web", "list", "clinic"]
    assert index.index.private == [False, False, True]


def test_images_carry_their_attempt_and_every_scalar_signal(index, inputs, row) -> None:
    raw, signals = inputs["raw"][0], inputs["signals"][0]
    table = index.images
    tried = {
        entry["image_uid"]: (entry, int(name[9:14]))
        for name in raw.names("attempts-*")
        for entry in pq.read_table(raw.path(name)).to_pylist()
    }
    measured = {
        entry["image_uid"]: entry
        for name in signals.names("images-*")
        for entry in pq.read_table(signals.path(name)).to_pylist()
    }
    kinds = pq.read_schema(signals.path(signals.names("images-*")[0]))
    scalars = {f.name for f in kinds if not pa.types.is_nested(f.type)} - {
        "thumbnail",
        "patch",
        "pixel_sha256",
        "source",
    }
    scalars -= {name for name in scalars if name.startswith("phash")}
    assert scalars <= set(table.column_names)
    assert {"width", "entropy", "sha256"} <= scalars
    hidden = set(table.column_names) & {
        "thumbnail",
        "patch",
        "pixel_sha256",
        "phash",
        "phash_rgb",
        "phash_d4",
        "mean_rgb",
    }
    assert not hidden
    for entry in table.filter(pa.compute.equal(table["source"], 0)).to_pylist():
        attempt, number = tried[entry["image_uid"]]
        signal = measured.get(entry["image_uid"], {})
        assert entry["status"] == attempt["status"]
        assert entry["shard"] == (number if attempt["status"] == "success" else None)
        assert (entry["offset"], entry["length"]) == (attempt["offset"], attempt["length"])
        assert {name: entry[name] for name in scalars - {"image_uid"}} == {
            name: signal.get(name) for name in scalars - {"image_uid"}
        }
    assert table["decoded"][row("web", "http://a.example/gone")].as_py() is None
    assert table["decoded"][row("web", "http://a.example/broken")].as_py() is False
    captions = {p["uid"]: p for p in index.pairs.to_pylist()}
    said = captions[pair_uid("web", "http://User:x@A.example:80/1?q=/", "short")]
    assert (said["measured"], said["words"]) == (True, 1)
    lost = captions[pair_uid("web", "http://a.example/gone", "x")]
    assert (lost["measured"], lost["words"]) == (False, None)


def test_hosts_are_those_of_the_urls_but_of_no_private_source(index, row) -> None:
    host = index.images["host"].to_pylist()
    assert host[row("web", "http://User:x@A.example:80/1?q=/")] == "a.example"
    assert host[row("web", "https://b.example./same")] == "b.example"
    assert host[row("web", "http://a.example/gone")] == "a.example"
    assert host[row("clinic", "http://clinic.example/1")] is None


def test_equal_pixels_are_one_group_led_by_its_first_row(index, row) -> None:
    group = index.images["group"].to_numpy()
    same = [
        row("web", "http://User:x@A.example:80/1?q=/"),
        row("web", "https://b.example./same"),
        row("clinic", "http://clinic.example/1"),
    ]
    assert {group[r] for r in same} == {min(same)}
    copies = index.images["copies"].to_pylist()
    assert [copies[r] for r in same] == [True] * 3
    assert group[row("web", "http://a.example/gone")] == group[row("web", "http://a.example/broken")] == -1
    alone = row("web", "http://a.example/2")
    assert group[alone] == alone
    assert copies.count(True) == 3


def test_near_copies_are_found_and_mirrored_ones_by_the_hash_for_that(index, row) -> None:
    original, scaled, mirrored = (
        row("web", "http://a.example/2"),
        row("list", "http://c.example/scaled"),
        row("list", "http://c.example/mirrored"),
    )

    def found(hash: str) -> dict:
        near = index.near(hash).to_pylist()
        return {(n["first"], n["second"]): n for n in near}

    copy = found("phash")[min(original, scaled), max(original, scaled)]
    assert copy["distance"] <= 8
    assert copy["difference"] < 2
    assert (min(original, mirrored), max(original, mirrored)) not in found("phash")
    # A picture and its mirror image have one canonical position: they are of one class.
    table = index.images
    assert table["class_phash_d4"][original] == table["class_phash_d4"][mirrored]
    assert table["class_phash_d4"][original].as_py() == min(original, mirrored)
    assert table["class_phash"][mirrored].as_py() == mirrored
    with pytest.raises(KeyError):
        index.near("phash_rgb")
    for name in ("phash", "phash_d4"):
        classes, group = table[f"class_{name}"].to_numpy(), table["group"].to_numpy()
        similar, copies = table[f"similar_{name}"].to_numpy(), table["copies"].to_numpy()
        assert (classes[group >= 0] == classes[group[group >= 0]]).all()
        assert (classes[group < 0] == -1).all()
        assert not similar[group < 0].any()
        ends = {end for pair in found(name) for end in pair}
        alone = (np.bincount(classes[group >= 0], minlength=len(group))[classes] == 1) & (group >= 0)
        expected = [(not alone[r] and group[r] >= 0) or classes[r] in ends for r in range(len(group))]
        assert similar.tolist() == expected
        assert similar[copies].all()


def test_only_images_that_a_benchmark_lists_are_held_out(index, row) -> None:
    leak, near, unlisted = (
        row("web", "http://a.example/leak"),
        row("list", "http://c.example/leak"),
        row("web", "http://a.example/unlisted"),
    )
    assert index.index.benchmark_exact.to_pylist() == [
        {"image": leak, "benchmark": "captions", "file": "other/a.png"},
        {"image": leak, "benchmark": "vqa", "file": "images/20.png"},
    ]
    found = [(n["image"], n["benchmark"], n["file"]) for n in index.index.benchmark_near("phash").to_pylist()]
    assert found == sorted(found)
    assert (near, "vqa", "images/21.png") in found
    assert (leak, "captions", "other/a.png") in found
    assert unlisted not in {image for image, _, _ in found}


def test_crops_and_borders_of_what_a_benchmark_lists_are_found_mirrored_or_not(index, row) -> None:
    crops = index.index.benchmark_crops
    found = {(n["image"], n["file"]) for n in crops.to_pylist() if max(n["correlation"], n["uncovered"]) >= 0.97}
    assert found == {
        (row("web", "http://a.example/leak"), "images/20.png"),
        (row("web", "http://a.example/leak"), "other/a.png"),
        (row("list", "http://c.example/leak"), "images/21.png"),
        (row("list", "http://c.example/crop"), "images/20.png"),
        (row("list", "http://c.example/crop"), "other/a.png"),
        (row("list", "http://c.example/border"), "images/21.png"),
    }
    order = [(n["image"], n["benchmark"], n["file"]) for n in crops.to_pylist()]
    assert order == sorted(order)


def test_captions_that_repeat_a_benchmarks_texts_are_found_fetched_or_not(index) -> None:
    uids = index.pairs["uid"].to_pylist()
    found = {uids[r["pair"]]: (r["benchmark"], r["overlap"]) for r in index.benchmark_texts.to_pylist()}
    assert found == {
        pair_uid("web", "http://User:x@A.example:80/1?q=/", LEAKED): ("vqa", 1.0),
        pair_uid("web", "http://a.example/gone", QUESTION): ("vqa", 1.0),
    }


def test_counts_say_how_much_there_is(artifact) -> None:
    counts = artifact.counts
    assert counts["images"] == 13
    assert counts["pairs"] == 15
    assert counts["pictures"] == 9
    assert counts["benchmark.exact"] == 2
    assert counts["benchmark.texts"] == 2
    assert counts["benchmark.crops"] >= 6


def test_equal_inputs_give_equal_bytes_from_a_cache_and_without(artifact, inputs, run_stage, tmp_path) -> None:
    first = run_stage(BuildIndex(CONFIG), inputs, cache=tmp_path)
    held = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert held
    marks = [file.stat().st_mtime_ns for file in held]
    second = run_stage(BuildIndex(CONFIG), inputs, cache=tmp_path)
    assert [file.stat().st_mtime_ns for file in held] == marks  # nothing hashed again
    assert first.manifest["files"] == second.manifest["files"] == artifact.manifest["files"]


def test_what_is_said_does_not_depend_on_the_size_of_a_range(artifact, index, inputs, run_stage, whole) -> None:
    told = index.by_uid()
    for rows, files in ((1, 5), (9, 2), (10**9, 1)):
        other = whole(run_stage(BuildIndex(CONFIG.model_copy(update={"range_rows": rows})), inputs))
        assert len(other.index.ranges) == files
        assert all(it.pairs <= rows or len(it.parts) == 1 for it in other.index.ranges)
        assert other.by_uid() == told
        range_of = other.index.range_of(np.arange(-1, other.images.num_rows)).tolist()
        assert range_of == [-1, *(it.number for it in other.index.ranges for _ in range(it.images))]


def test_sources_may_be_measured_by_different_families(
    measured, scene, as_bytes, run_stage, fetched_source, whole
) -> None:
    from stages.signals.config import SignalsConfig
    from stages.signals.stage import Signals

    inputs = measured({"full": [("http://x/1", as_bytes(scene(1)), ["x"])]}, 1)
    pairs, raw = fetched_source("bare", [("http://y/1", as_bytes(scene(2)), ["y"])], 1)
    signals = run_stage(Signals(SignalsConfig(families=("hashes",))), {"pairs": [pairs], "raw": [raw]})
    inputs = {role: [*inputs[role], artifact] for role, artifact in zip(inputs, (pairs, raw, signals), strict=True)}
    config = IndexConfig(search_radius={"phash": 8}, range_rows=1)
    table = whole(run_stage(BuildIndex(config), inputs)).images  # whose ranges have one schema
    by_source = {row["source"]: row for row in table.to_pylist()}
    assert by_source[0]["entropy"] is not None
    assert by_source[1]["entropy"] is None
    assert by_source[1]["group"] >= 0


def test_nothing_fetched_at_all_is_a_table_without_pictures(measured, run_stage, whole) -> None:
    index = whole(
        run_stage(BuildIndex(IndexConfig(search_radius={"phash": 8})), measured({"x": [("http://x/1", "dns", ["x"])]}))
    )
    assert index.images["status"].to_pylist() == ["dns"]
    assert index.near("phash").num_rows == index.index.benchmark_near("phash").num_rows == 0
    assert index.index.benchmark_exact.num_rows == 0


def shortened(artifact, seal, folder, pattern: str, stage: str):
    """A copy of an artifact whose files of a pattern have lost their rows."""
    for name in artifact.names():
        table = pq.read_table(artifact.path(name)) if name.endswith(".parquet") else None
        if table is None:
            (folder / name).write_bytes(artifact.path(name).read_bytes())
        else:
            keep = table.slice(0, 0) if name.startswith(pattern) else table
            pq.write_table(keep, folder / name)
    return seal(folder, stage, artifact.manifest["config"].get("name", "x"))


@pytest.mark.parametrize(
    ("role", "pattern", "message"),
    [
        ("raw", "attempts-", r"image \w+ was never tried \(source x\); run `pairmill run download` again"),
        ("signals", "images-", r"image \w+ was fetched but not measured .*signals"),
        ("signals", "pairs-", r"the caption of \w+ was not measured .*signals"),
    ],
)
def test_inputs_that_disagree_are_refused(
    measured, scene, as_bytes, run_stage, seal, tmp_path, role, pattern, message
) -> None:
    inputs = measured({"x": [("http://x/1", as_bytes(scene(1)), ["x"])]}, 1)
    inputs[role] = [shortened(inputs[role][0], seal, tmp_path, pattern, role)]
    with pytest.raises(UserError, match=message):
        run_stage(BuildIndex(IndexConfig(search_radius={"phash": 8})), inputs)


def test_a_source_or_a_pair_that_is_listed_twice_is_refused(
    measured, scene, as_bytes, run_stage, seal, tmp_path
) -> None:
    once = measured({"x": [("http://x/1", as_bytes(scene(1)), ["x"])]}, 1)
    twice = {role: [*artifacts, *artifacts] for role, artifacts in once.items()}
    with pytest.raises(UserError, match="two inputs are source x"):
        run_stage(BuildIndex(IndexConfig(search_radius={})), twice)
    (pairs,) = once["pairs"]
    table = pq.read_table(pairs.path("pairs-00000.parquet"))
    pq.write_table(pa.concat_tables([table, table]), tmp_path / "pairs-00000.parquet")
    with pytest.raises(UserError, match=r"pair .* is listed twice"):
        run_stage(BuildIndex(IndexConfig(search_radius={})), {**once, "pairs": [seal(tmp_path, "ingest", "x")]})


def test_signals_without_hashes_are_refused(fetched_source, scene, as_bytes, run_stage) -> None:
    from stages.signals.config import SignalsConfig
    from stages.signals.stage import Signals

    pairs, raw = fetched_source("x", [("http://x/1", as_bytes(scene(1)), ["x"])], 1)
    signals = run_stage(Signals(SignalsConfig(families=("text",))), {"pairs": [pairs], "raw": [raw]})
    with pytest.raises(UserError, match=r"source x have no pixel_sha256; add the family `hashes`"):
        run_stage(BuildIndex(IndexConfig(search_radius={})), {"pairs": [pairs], "raw": [raw], "signals": [signals]})


def test_an_image_only_source_is_named_as_such_and_searched_like_any_other(
    measured, scene, as_bytes, run_stage, world, whole
) -> None:
    home = world({"images/1.png": as_bytes(scene(5)), "texts.json": b'{"annotations": [], "images": []}'}, "more")
    web = [("http://x/1", as_bytes(scene(1)), ["a street"])]
    images = [("http://y/1", as_bytes(scene(1), "BMP"), [""]), ("http://y/2", as_bytes(scene(5)), [""])]
    inputs = measured({"web": web, "images": images}, 1)
    config = IndexConfig(
        search_radius={"phash": 8},
        benchmarks={"held": {"images": "world:more/images"}},  # type: ignore[dict-item]
    )
    artifact = run_stage(BuildIndex(config), {**inputs, "worlds": [home]})
    index = whole(artifact)
    assert artifact.read_json("sources.json") == [
        {"name": "web", "private": False},
        {"name": "images", "private": False, "image_only": True},
    ]
    assert index.index.image_only == [False, True]
    assert index.pairs["measured"].to_pylist() == [True, True, True]
    assert index.pairs["words"].null_count == 2
    group = index.images["group"].to_numpy()
    of = {uid: row for row, uid in enumerate(index.images["image_uid"].to_pylist())}
    assert group[of[image_uid("web", "http://x/1")]] == group[of[image_uid("images", "http://y/1")]]
    assert index.index.benchmark_exact["image"].to_pylist() == [of[image_uid("images", "http://y/2")]]
    assert index.benchmark_texts.num_rows == 0
