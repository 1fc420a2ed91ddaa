"""Whatever is done to shards is found and named exactly; nothing is found where nothing was done."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.base.forgetting import Forgotten
from stages.shard.check import check, check_shard
from stages.shard.forget import forget
from stages.shard.index import ShardIndex, write_index
from stages.shard.reader import ShardReader
from stages.shard.tarcheck import ShardFault
from stages.shard.verify import missing_or_short

SETTINGS = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def artifact(world: Any, shard: Callable[..., Artifact]) -> Artifact:
    return shard(world.inputs())


def problems(where: Artifact | Path) -> list[ShardFault]:
    reader = ShardReader(where)
    return check(reader, lambda numbers, by_index: (check_shard(reader, n, by_index) for n in numbers)).problems


def members(path: Path) -> list[tuple[str, range]]:
    """Name and extent (header, data, padding) of each member."""
    with tarfile.open(path) as tar:
        return [(m.name, range(m.offset, m.offset_data + -(-m.size // 512) * 512)) for m in tar]


def test_sound_shards_have_no_problem_and_are_counted(artifact: Artifact, world: Any) -> None:
    reader = ShardReader(artifact)
    report = check(reader, lambda numbers, by_index: (check_shard(reader, n, by_index) for n in numbers))
    assert report.problems == []
    assert (report.shards, report.samples) == (len(reader.shards), len(world.captions))
    assert report.bytes == artifact.counts["bytes"]
    assert missing_or_short(reader) == []


def test_any_flipped_bit_is_named_by_shard_sample_and_place(artifact: Artifact) -> None:
    path = artifact.path("train-00001.tar")
    sound, extents = path.read_bytes(), members(path)

    @SETTINGS
    @given(place=st.integers(0, len(sound) - 1), bit=st.integers(0, 7))
    @example(place=155, bit=0)  # behind the digits of a header's own checksum
    def flip(place: int, bit: int) -> None:
        data = bytearray(sound)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        found = problems(artifact)
        assert {problem.file for problem in found} == {"train-00001.tar"}, found
        hit = next(((name, extent) for name, extent in extents if place in extent), None)
        if hit is None:  # the end mark
            assert [(p.uid, p.offset) for p in found] == [(None, place)]
        else:
            (problem,) = found
            assert problem.uid == hit[0].split(".")[0]
            assert problem.offset is not None
            assert problem.offset in hit[1]

    try:
        flip()
    finally:
        path.write_bytes(sound)


def test_any_cut_is_named_with_the_first_sample_that_is_lost(artifact: Artifact) -> None:
    path = artifact.path("train-00000.tar")
    sound = path.read_bytes()
    with tarfile.open(path) as tar:
        ends = [(member.name, member.offset_data + member.size) for member in tar]

    @SETTINGS
    @given(length=st.integers(0, len(sound) - 1))
    def cut(length: int) -> None:
        path.write_bytes(sound[:length])
        assert [fault.name for fault in missing_or_short(ShardReader(artifact))] == ["train-00000.tar"]
        (problem,) = problems(artifact)
        assert problem.file == "train-00000.tar"
        first = next((name for name, end in ends if end > length), None)
        assert problem.uid == (first.split(".")[0] if first else None)

    try:
        cut()
    finally:
        path.write_bytes(sound)


def test_a_missing_shard_hides_no_other_fault(artifact: Artifact) -> None:
    lost = artifact.path("train-00000.tar")
    lost.unlink()
    flipped = artifact.path("train-00002.tar")
    data = bytearray(flipped.read_bytes())
    data[600] ^= 1
    flipped.write_bytes(data)
    found = problems(artifact)
    assert [problem.file for problem in found] == ["train-00000.tar", "train-00002.tar"]
    assert "missing with 7 samples" in str(found[0])
    (fault,) = missing_or_short(ShardReader(artifact))
    assert (fault.shard, str(fault), fault.samples) == (0, "train-00000.tar: missing (7 samples)", range(7))


def changed(artifact: Artifact, change: Callable[[list[dict[str, Any]]], Any]) -> list[ShardFault]:
    """Problems after a change of the index's rows, but for the index's own hash."""
    path = artifact.path("index.arrow")
    table = ShardIndex.open(path).table
    rows = table.to_pylist()
    change(rows)
    del table
    rewritten = path.with_name("new.arrow")
    write_index(rewritten, [pa.Table.from_pylist(rows, ShardIndex.open(path).table.schema)])
    rewritten.replace(path)
    found = problems(artifact)
    hashed = [problem for problem in found if problem.file == "index.arrow" and "sha256" in problem.what]
    assert len(hashed) == 1
    found.remove(hashed[0])
    return found


@pytest.mark.parametrize(("column", "by"), [("image_offset", 512), ("text_offset", -512), ("json_length", 1)])
def test_a_changed_row_is_named_with_both_places(artifact: Artifact, column: str, by: int) -> None:
    uids = []

    def change(rows: list[dict[str, Any]]) -> None:
        rows[3][column] += by
        uids.append(rows[3]["uid"])

    (problem,) = changed(artifact, change)
    assert (problem.file, problem.uid) == ("train-00000.tar", uids[0])
    assert "the index has its" in problem.what
    assert "the tar holds it at offset" in problem.what


def test_a_missing_row_names_the_members_the_index_does_not_list(artifact: Artifact) -> None:
    removed = []
    found = changed(artifact, lambda rows: removed.append(rows.pop(8)))
    uid = removed[0]["uid"]
    unlisted = [problem.what for problem in found if "does not list" in problem.what]
    assert len(unlisted) == 3
    assert all(f"the tar holds {uid}." in what for what in unlisted)
    assert any("6 samples are in the index, 7 in dataset.json" in problem.what for problem in found)


def test_an_extra_row_is_named_as_such(artifact: Artifact) -> None:
    found = changed(artifact, lambda rows: rows.insert(2, {**rows[2], "uid": "f" * 32}))
    assert len([p for p in found if p.uid == "f" * 32 and "the tar holds no" in p.what]) == 3
    found = changed(artifact, lambda rows: rows.__setitem__(2, rows[3]))
    assert any("its uid is also that of the sample in train-00000.tar" in problem.what for problem in found)


def test_an_unreadable_index_still_lets_every_shard_be_checked(artifact: Artifact) -> None:
    path = artifact.path("index.arrow")
    path.write_bytes(path.read_bytes()[:200])
    artifact.path("train-00001.tar").unlink()
    found = problems(artifact)
    assert [problem.file for problem in found] == ["index.arrow", "index.arrow", "train-00001.tar", "train-00001.tar"]
    assert "0 samples are in the tar, 7 in dataset.json" in found[-1].what


def picture(seed: int = 0) -> bytes:
    stored = io.BytesIO()
    Image.effect_noise((40, 30), 50 + seed).save(stored, "jpeg")
    return stored.getvalue()


def foreign(path: Path, samples: list[dict[str, Any]]) -> Path:
    from webdataset import TarWriter

    with TarWriter(str(path)) as tar:
        for sample in samples:
            tar.write(sample)
    return path


def test_tars_of_others_are_checked_without_an_index(tmp_path: Path) -> None:
    good = [{"__key__": f"{n:03}", "jpg": picture(n), "txt": "words"} for n in range(4)]
    foreign(tmp_path / "a.tar", good)
    assert problems(tmp_path) == []
    foreign(
        tmp_path / "b.tar", [{**good[0], "__key__": "b0", "jpg": picture()[:300]}, {"__key__": "b1", "txt": "alone"}]
    )
    foreign(tmp_path / "c.tar", [{**good[0], "__key__": "002"}, {**good[0], "__key__": "c1", "json": b"{broken"}])
    found = [str(problem) for problem in problems(tmp_path)]
    expected = (
        "b.tar: sample b0 at offset 1536: its image does not decode; leave the sample out",
        "b.tar: sample b1 at offset 5632: it holds no image, only txt; ",
        "c.tar: sample c1 at offset 6144: it holds a .json that is not JSON; ",
        "c.tar: sample 002 at offset 1536: its uid is also that of the sample in a.tar at offset",
    )
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_a_damaged_tar_of_others_is_never_taken_for_a_shorter_one(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.tar", [{"__key__": f"{n:03}", "jpg": picture(n), "txt": "w"} for n in range(4)])
    sound, extents = path.read_bytes(), members(path)

    @SETTINGS
    @given(data=st.data(), header=st.booleans())
    def harm(data: st.DataObject, header: bool) -> None:
        if header:
            _, extent = data.draw(st.sampled_from(extents))
            harmed = bytearray(sound)
            harmed[extent.start + data.draw(st.integers(0, 99))] ^= 0x15
            path.write_bytes(harmed)
        else:
            path.write_bytes(sound[: data.draw(st.integers(0, extents[-1][1].stop))])
        (problem,) = [p for p in problems(tmp_path) if p.uid is None]
        assert problem.file == "a.tar"
        if header and extent.start:
            assert problem.offset == extent.start
            with pytest.raises(UserError, match=rf"a\.tar: at offset {extent.start}"):
                len(ShardReader(tmp_path))

    harm()


def test_content_never_enters_a_line(artifact: Artifact, world: Any) -> None:
    for name in artifact.names("train-*.tar"):
        path = artifact.path(name)
        data = bytearray(path.read_bytes())
        for place in range(0, len(data), 97):
            data[place] ^= 4
        path.write_bytes(data)
    text = "\n".join(map(str, problems(artifact)))
    assert text.count("\n") > 20
    assert "ein Bild" not in text
    assert "写真" not in text
    json.dumps([problem.to_json() for problem in problems(artifact)])


@pytest.fixture
def rewritten(artifact: Artifact, tmp_path: Path) -> Path:
    """A copy without manifest, to write parts of it anew with checksums that fit."""
    folder = tmp_path / "copy"
    shutil.copytree(artifact.url, folder)
    (folder / "manifest.json").unlink()
    return folder


def test_a_json_that_disagrees_with_caption_index_or_image_is_named(rewritten: Path) -> None:
    from stages.shard.index import IndexRow, checksum, to_table
    from stages.shard.writer import ShardWriter

    record = {"uid": "a" * 32, "image_uid": "other", "source": "s", "caption": "not so", "width": 41, "height": 30}
    parts = {"jpg": picture(), "txt": b"words", "json": json.dumps(record).encode()}
    for path in rewritten.glob("*.tar"):
        path.unlink()
    with ShardWriter(rewritten / "train-00000.tar") as shard:
        at = shard.add("a" * 32, parts)
    sums = [checksum(parts[ext]) for ext in ("jpg", "txt", "json")]
    row = IndexRow("a" * 32, "i", "s", 0, "jpg", *at["jpg"], *at["txt"], *at["json"], 1, *sums)
    write_index(rewritten / "index.arrow", [to_table([row])])
    (rewritten / "dataset.json").write_text('{"samples": 1, "shards": [{"name": "train-00000.tar", "samples": 1}]}')
    found = [problem.what for problem in problems(rewritten)]
    assert found == [
        "its .json disagrees with its index on image_uid",
        "its .json disagrees with its .txt on caption",
        "its .json disagrees with its image on width",
    ]


@pytest.mark.parametrize("older", [False, True])
def test_shards_are_sound_after_forgetting_from_them(artifact: Artifact, world: Any, older: bool) -> None:
    path = artifact.path("index.arrow")
    if older:  # an index of an earlier version, which knew no checksums
        table = ShardIndex.open(path).table.drop_columns(["image_xxh3", "text_xxh3", "json_xxh3"])
        with pa.ipc.new_file(str(path.with_name("older")), table.schema) as writer:
            writer.write_table(table)
        path.with_name("older").replace(path)
    uids = sorted(world.captions)[::4]
    out = path.parent / "out"
    out.mkdir()
    removal = forget(artifact, {}, Forgotten(frozenset(uids), frozenset()), out)
    assert removal.samples == len(uids)
    for name in removal.rewritten:
        (out / name).replace(path.parent / name)
    (path.parent / "manifest.json").unlink()
    assert problems(artifact) == []
    reader = ShardReader(artifact)
    assert {reader.sample(i).uid for i in range(len(reader))} == set(world.captions) - set(uids)
    assert (reader.index[0].image_xxh3 is None) == older


def test_where_everything_was_forgotten_nothing_is_left_to_forget(artifact: Artifact, world: Any) -> None:
    forgotten = Forgotten(frozenset(world.captions), frozenset())
    out = artifact.path().parent / "out"
    out.mkdir()
    removal = forget(artifact, {}, forgotten, out)
    assert removal.samples == len(world.captions)
    for name in removal.rewritten:
        (out / name).replace(artifact.path(name))
    assert not forget(artifact, {}, forgotten, None)


@pytest.mark.parametrize("some", [True, False])
def test_images_without_a_text_are_checked_and_forgotten_like_any_other(
    mixed_world: Any, shard: Callable[..., Artifact], some: bool
) -> None:
    artifact = shard(mixed_world.inputs())
    assert problems(artifact) == []
    uids = sorted(uid for uid, caption in mixed_world.captions.items() if not caption)
    gone = {*(uids[:3] if some else uids), next(uid for uid, caption in mixed_world.captions.items() if caption)}
    out = artifact.path().parent / "out"
    out.mkdir()
    removal = forget(artifact, {}, Forgotten(frozenset(gone), frozenset()), out)
    assert removal.samples == len(gone)
    for name in removal.rewritten:
        (out / name).replace(artifact.path(name))
    (artifact.path() / "manifest.json").unlink()
    assert problems(artifact) == []
    reader = ShardReader(artifact)
    assert {reader.sample(i).uid for i in range(len(reader))} == set(mixed_world.captions) - gone
    assert reader.dataset.get("image_only") == ({"gamma": 5} if some else None)

    row = next(row for row in (reader.index[i] for i in range(len(reader))) if some == (row.text_length < 0))
    path = artifact.path(reader.shards[row.shard])
    content = bytearray(path.read_bytes())
    content[row.image_offset + 20] ^= 1
    path.write_bytes(content)
    assert [problem.uid for problem in problems(artifact)] == [row.uid]


def test_what_follows_the_end_mark_of_a_foreign_tar_is_not_lost_in_silence(tmp_path: Path) -> None:
    """As `cat a.tar b.tar` makes it: readers stop at the first end mark."""
    picture = io.BytesIO()
    Image.new("RGB", (9, 9)).save(picture, "PNG")
    content = b""
    for key in ("a", "b"):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            member = tarfile.TarInfo(f"{key}.png")
            member.size = len(picture.getvalue())
            tar.addfile(member, io.BytesIO(picture.getvalue()))
        content += packed.getvalue()
    (tmp_path / "00000.tar").write_bytes(content)
    with pytest.raises(UserError, match="more follows the end mark"):
        len(ShardReader(tmp_path))
