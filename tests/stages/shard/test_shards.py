"""Training shards hold every kept pair once, in bytes that depend on nothing but config and inputs."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from stages.base.artifact import file_sha256
from stages.base.contract import UserError
from stages.shard.reader import ShardReader


def test_every_kept_pair_is_in_exactly_one_shard_with_its_bytes_and_caption(
    world: Any, shard: Callable[..., Any]
) -> None:
    dropped = sorted(world.captions)[::5]
    artifact = shard(world.inputs(drop=dropped))

    found = {}
    for name in artifact.names("train-*.tar"):
        with tarfile.open(artifact.path(name)) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                uid, ext = member.name.split(".")
                assert (uid, ext) not in found
                found[uid, ext] = tar.extractfile(member).read()
    kept = set(world.captions) - set(dropped)
    assert {uid for uid, _ in found} == kept
    for uid in kept:
        assert found[uid, "txt"].decode() == world.captions[uid]
        assert [data for (u, ext), data in found.items() if u == uid and ext in ("jpg", "png", "webp")] == [
            world.images[uid]
        ]
        record = json.loads(found[uid, "json"])
        assert set(record) == {
            "uid", "image_uid", "source", "caption", "url", "license", "width", "height", "sha256",
        }  # fmt: skip
        assert (record["uid"], record["caption"], record["license"]) == (uid, world.captions[uid], "CC0")


def test_webdataset_and_gnu_tar_read_the_shards(world: Any, shard: Callable[..., Any]) -> None:
    from webdataset import WebDataset

    artifact = shard(world.inputs())
    urls = [str(artifact.path(name)) for name in artifact.names("train-*.tar")]
    samples = list(WebDataset(urls, shardshuffle=False).decode("pil"))
    assert {s["__key__"]: s["txt"] for s in samples} == world.captions
    assert all(isinstance(s.get("jpg") or s.get("png") or s.get("webp"), Image.Image) for s in samples)
    listed = "".join(
        subprocess.run(["tar", "-tf", url], check=True, capture_output=True, text=True).stdout for url in urls
    )
    assert len(listed.split()) == 3 * len(samples)


def test_bytes_are_equal_for_two_runs_and_any_order_of_partitions(world: Any, shard: Callable[..., Any]) -> None:
    inputs = world.inputs()
    first, second = shard(inputs), shard(inputs, reverse=True)
    assert first.manifest["files"] == second.manifest["files"]
    assert first.manifest == second.manifest


def test_sources_are_mixed_and_the_seed_decides_how(world: Any, shard: Callable[..., Any]) -> None:
    inputs = world.inputs()
    orders = []
    for seed in (0, 1):
        reader = ShardReader(shard(inputs, seed=seed))
        assert {s.source for s in reader.iterate(0)} == {"alpha", "beta"}
        orders.append([reader.index[i].uid for i in range(len(reader))])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_dataset_json_tells_samples_size_and_hash_of_each_shard(world: Any, shard: Callable[..., Any]) -> None:
    artifact = shard(world.inputs())
    record = artifact.read_json("dataset.json")
    assert record["samples"] == len(world.captions) == artifact.counts["samples"]
    assert [entry["name"] for entry in record["shards"]] == artifact.names("train-*.tar")
    for entry in record["shards"]:
        path = artifact.path(entry["name"])
        assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, file_sha256(path))
        assert entry["samples"] <= 7


def test_shards_stay_within_max_bytes(world: Any, shard: Callable[..., Any]) -> None:
    artifact = shard(world.inputs(), max_bytes=1 << 16, max_samples=1000)
    sizes = [artifact.path(name).stat().st_size for name in artifact.names("train-*.tar")]
    assert len(sizes) > 1
    assert max(sizes) <= 1 << 16


def test_index_points_at_the_exact_bytes_of_every_part(world: Any, shard: Callable[..., Any]) -> None:
    artifact = shard(world.inputs())
    table = pa.ipc.open_file(pa.memory_map(str(artifact.path("index.arrow")))).read_all()
    assert pa.types.is_dictionary(table.schema.field("source").type)
    names = artifact.names("train-*.tar")
    rows = table.to_pylist()
    where = {}
    for number, name in enumerate(names):
        with tarfile.open(artifact.path(name)) as tar:
            where |= {m.name: (number, m.offset_data, m.size) for m in tar}
    assert len(where) == 3 * len(rows)
    for row in rows:
        for part, ext in (("image", row["image_ext"]), ("text", "txt"), ("json", "json")):
            place = (row["shard"], row[f"{part}_offset"], row[f"{part}_length"])
            assert where[f"{row['uid']}.{ext}"] == place


def test_a_longest_side_scales_large_images_down_and_leaves_the_rest(world: Any, shard: Callable[..., Any]) -> None:
    reader = ShardReader(shard(world.inputs(), longest_side=30))
    scaled = 0
    for i in range(len(reader)):
        sample, record = reader.sample(i), reader.meta(i)
        with Image.open(io.BytesIO(sample.image_bytes)) as image:
            assert max(image.size) <= 30
            assert image.size == (record["width"], record["height"])
        if sample.image_bytes != world.images[sample.uid]:
            assert sample.ext == "jpg"
            scaled += 1
    assert 0 < scaled < len(reader)


def test_a_damaged_raw_shard_is_refused_by_name_and_offset(world: Any, shard: Callable[..., Any]) -> None:
    path = world.raw[0].path("raw-00000.tar")
    data = bytearray(path.read_bytes())
    data[600] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(RuntimeError, match=r"raw-00000\.tar: image [0-9a-f]{32} at offset 512 .*damaged"):
        shard(world.inputs())


def test_a_kept_pair_without_an_image_is_named(world: Any, shard: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=f"keep pair {'0' * 32},"):
        shard(world.inputs(extra=["0" * 32]))


def test_nothing_kept_is_explained_by_what_the_selection_dropped(world: Any, shard: Callable[..., Any]) -> None:
    drop = dict.fromkeys(world.captions, "rule.min_words")
    drop[next(iter(drop))] = "download.http_404"
    drop[next(reversed(drop))] = "forgotten"
    with pytest.raises(UserError) as stopped:
        shard(world.inputs(drop=drop))
    assert str(stopped.value) == (
        f"shard: none of the {len(drop)} pairs is kept (rule.min_words {len(drop) - 2}, download.http_404 1, forgotten "
        "1): images that could not be fetched have a row in attempts-*.parquet of the download; relax `selection` for "
        "what it drops; report.html of stage `select` shows every reason; what `pairmill forget` removed stays out"
    )


def test_nothing_kept_since_no_image_was_fetched_names_each_source_and_not_the_selection(
    world_without_images: Any, shard: Callable[..., Any]
) -> None:
    world = world_without_images
    with pytest.raises(UserError) as stopped:
        shard(world.inputs(drop=dict.fromkeys(world.captions, "download.missing_file")))
    line = str(stopped.value)
    assert line.startswith(f"shard: none of the {len(world.captions)} pairs is kept (download.missing_file ")
    for source, images in (("delta", 7), ("epsilon", 8)):
        assert f"sources.{source}: none of its {images} images could be fetched: missing_file {images}" in line
        assert f"sources.{source}.images" in line
    assert "selection" not in line
    assert "\n" not in line


def test_the_index_says_how_often_an_epoch_shows_each_sample(world: Any, shard: Callable[..., Any]) -> None:
    uids = sorted(world.captions)
    often = {uids[0]: 3, uids[-1]: 2}
    reader = ShardReader(shard(world.inputs(repeats=often)))
    rows = [reader.index[i] for i in range(len(reader))]
    assert len(rows) == len(uids)
    assert {row.uid: row.repeats for row in rows if row.repeats != 1} == often


def test_an_image_without_a_text_is_stored_without_one(mixed_world: Any, shard: Callable[..., Any]) -> None:
    artifact = shard(mixed_world.inputs())
    reader = ShardReader(artifact)
    without = {uid for uid, caption in mixed_world.captions.items() if not caption}
    assert len(without) == 8
    members: dict[str, set[str]] = {}
    for name in artifact.names("train-*.tar"):
        with tarfile.open(artifact.path(name)) as tar:
            for member in tar:
                uid, _, ext = member.name.partition(".")
                members.setdefault(uid, set()).add(ext)
    assert {uid for uid, parts in members.items() if "txt" not in parts} == without
    for number in range(len(reader)):
        row, sample = reader.index[number], reader.sample(number)
        assert sample.image_bytes == mixed_world.images[sample.uid]
        assert sample.caption == mixed_world.captions[sample.uid]
        assert reader.meta(number)["caption"] == (sample.caption or None)
        if sample.uid in without:
            assert (row.text_offset, row.text_length, row.text_xxh3) == (0, -1, None)
    assert artifact.read_json("dataset.json")["image_only"] == {"gamma": 8}


def test_shards_of_captioned_sources_do_not_speak_of_others(world: Any, shard: Callable[..., Any]) -> None:
    assert set(shard(world.inputs()).read_json("dataset.json")) == {"samples", "shards"}
