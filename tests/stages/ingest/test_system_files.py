"""Files that macOS, Windows and Spark put beside others are passed over and counted, wherever lists and images lie."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.base.contract import UserError
from stages.base.external_files import is_system_file
from stages.index.config import BenchmarkImages
from stages.index.held_out import held_out
from stages.ingest.files import find
from stages.shard.check import check, check_shard
from stages.shard.reader import ShardReader

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        "


@pytest.mark.parametrize(
    "name",
    [
        "._1.jpg",
        "a/._1.jpg",
        ".DS_Store",
        "a/.ds_store",
        "__MACOSX/a/1.jpg",
        "Thumbs.db",
        "a/desktop.ini",
        "_SUCCESS",
        ".part-0.parquet.crc",
    ],
)
def test_what_an_operating_system_writes_is_known_by_its_name(name: str) -> None:
    assert is_system_file(name)


@pytest.mark.parametrize("name", ["1.jpg", "_1.jpg", ".1.jpg", "a._1.jpg", "x.crc", "MACOSX/1.jpg", "_success.jpg"])
def test_what_a_user_may_have_named_is_data(name: str) -> None:
    assert not is_system_file(name)


def _sidecars(folder: Path) -> int:
    """Add what a Mac adds; returns how many files."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        path.with_name(f"._{path.name}").write_bytes(APPLE_DOUBLE)
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "1.jpg").write_bytes(APPLE_DOUBLE)
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return len(files) + 2


def test_a_folder_of_images_from_a_mac_gives_what_it_gave_before(
    ingest: Any, pairs: Any, contents: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, content in (("1.jpg", b""), ("1.txt", b"a cat"), ("2.jpg", b""), ("2.json", b'{"caption": "a dog"}')):
        (folder / name).write_bytes(content)
    fields = {"kind": "folder", "paths": [str(folder)]}
    before = ingest(fields)
    assert "system_files" not in before.counts
    number = _sidecars(folder)
    after = ingest(fields)
    assert contents(after) == contents(before)
    assert after.counts == {**before.counts, "system_files": number}
    assert source_files(fields) == sorted(str(path) for path in folder.iterdir() if path.name[0] not in "._")


def source_files(fields: dict[str, Any]) -> list[str]:
    from stages.ingest.plugins import source_config

    return sorted(source_config("s", fields).external_files("sources.s"))


def test_a_folder_of_lists_from_a_mac_has_no_bad_file(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / "a.csv").write_text("url,caption\nhttp://x.test/1.jpg,a cat\n")
    number = _sidecars(tmp_path / "l")
    artifact = ingest({"kind": "table", "paths": [str(tmp_path / "l")]})
    assert (artifact.counts["pairs"], artifact.counts["bad_files"], artifact.counts["system_files"]) == (1, 0, number)
    globbed = ingest({"kind": "table", "paths": [f"{tmp_path}/l/*"]})
    assert (globbed.counts["pairs"], globbed.counts["bad_files"]) == (1, 0)


def test_a_file_that_is_named_itself_is_read_and_one_below_a_named_folder_is_judged_there(tmp_path: Path) -> None:
    folder = tmp_path / "__MACOSX"
    folder.mkdir()
    for name in ("._a.csv", "b.csv"):
        (folder / name).write_text("x")
    assert [file.name for file in find([f"{folder}/._a.csv"], "k").files] == ["._a.csv"]
    assert [file.name for file in find([str(folder)], "k").files] == ["b.csv"]
    (folder / "b.csv").unlink()
    with pytest.raises(UserError, match="k: nothing but files of the operating system at"):
        find([str(folder)], "k")


def test_an_archive_is_named_and_never_read_as_a_list(ingest: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="inside an archive, which is not read in place; unpack it"):
        find([f"zip://*.csv::{tmp_path}/lists.zip"], "k")
    (tmp_path / "photos.zip").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match=r"mostly archive.*Unpack the archives first"):
        ingest({"kind": "folder", "paths": [str(tmp_path)]})


def _tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_a_tar_made_on_a_mac_is_a_shard_like_any_other(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (40, 40)).save(picture, "JPEG")
    members = {
        "._.": APPLE_DOUBLE,
        ".DS_Store": b"\0",
        "._0001.jpg": APPLE_DOUBLE,
        "0001.jpg": picture.getvalue(),
        "._0001.txt": APPLE_DOUBLE,
        "0001.txt": b"words",
        "__MACOSX/._0002.jpg": APPLE_DOUBLE,
        "0002.jpg": picture.getvalue(),
        "0002.txt": b"more words",
    }
    _tar(tmp_path / "00000.tar", members)
    reader = ShardReader(tmp_path)
    assert [(sample.uid, sample.caption) for sample in reader.iterate(0)] == [("0001", "words"), ("0002", "more words")]
    report = check(reader, lambda numbers, by_index: (check_shard(reader, number, by_index) for number in numbers))
    assert (report.samples, report.problems, report.system_files) == (2, [], 5)


def test_a_benchmark_s_folder_from_a_mac_holds_its_images_only(tmp_path: Path) -> None:
    for name in ("1.jpg", "a/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    _sidecars(tmp_path)
    assert held_out("b", BenchmarkImages(images=str(tmp_path)), {}).files == ["1.jpg", "a/2.jpg"]
