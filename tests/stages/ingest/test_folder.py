"""A folder of images with text and JSON files beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stages.ingest.plugins import source_config


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images in two folders, described in all the ways there are, and some strays."""
    folder = tmp_path / "photos"
    files: dict[str, bytes] = {
        "a/1.jpg": b"",
        "a/1.txt": b"\xef\xbb\xbfa cat\n",
        "a/2.PNG": b"",
        "a/2.json": json.dumps({"caption": "a dog", "width": 3, "sha256": "0" * 64}).encode(),
        "b/3.webp": b"",
        "b/3.txt": b"a bird\r\n\r\na small bird\n",
        "b/3.json": b'{"caption": "not this", "by": "Ada"}',
        "b/4.jpg": b"",
        "b/5.txt": b"nobody's",
        "b/6.jpg": b"",
        "b/6.txt": b"caf\xe9",
        "b/7.jpg": b"",
        "b/7.json": b"{",
        "b/8.jpg": b"",
        "b/8.txt": b"x" * 70_000,
        "b/9.jpg": b"",
        "b/9.json": b'{"caption": 9}',
        "b/notes.md": b"",
        "b/10.jpg": b"",
        "b/10.json": b"[]",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_an_image_is_paired_with_the_file_beside_it(ingest: Any, pairs: Any, rejects: Any, photos: Path) -> None:
    artifact = ingest({"kind": "folder", "paths": [str(photos)]}, files_per_partition=2)
    rows = {row["path"]: row for row in pairs(artifact)}
    assert {path: row["caption"] for path, row in rows.items()} == {
        "a/1.jpg": "a cat",
        "a/2.PNG": "a dog",
        "b/3.webp": "a bird\r\n\r\na small bird",
    }
    assert json.loads(rows["a/2.PNG"]["meta"]) == {"width": 3, "listed_sha256": "0" * 64}
    assert json.loads(rows["b/3.webp"]["meta"]) == {"by": "Ada"}
    assert {(file, reason) for file, _, reason in rejects(artifact)} == {
        ("b/4.jpg", "no_caption"),
        ("b/5.txt", "no_image"),
        ("b/6.jpg", "not_utf8"),
        ("b/7.jpg", "not_json"),
        ("b/8.jpg", "caption_too_long"),
        ("b/9.jpg", "not_text"),
        ("b/10.jpg", "not_an_object"),
        ("b/notes.md", "not_an_image_file"),
    }


def test_every_line_can_be_a_caption(ingest: Any, pairs: Any, photos: Path) -> None:
    artifact = ingest({"kind": "folder", "paths": [f"{photos}/b/3.*"], "images": str(photos), "captions": "lines"})
    assert {(row["path"], row["caption"]) for row in pairs(artifact)} == {
        ("b/3.webp", "a bird"),
        ("b/3.webp", "a small bird"),
    }
    assert artifact.counts["images"] == 1


@pytest.mark.parametrize(
    ("paths", "images"),
    [
        (["/d/photos"], "/d/photos"),
        (["/d/photos/"], "/d/photos"),
        (["/d/photos/*/img"], "/d/photos"),
        (["/d/a", "/d/b/c"], "/d"),
        (["/d/a/1.jpg"], "/d/a"),
        (["s3://bucket/a", "s3://bucket/b"], "s3://bucket"),
        (["photos"], "photos"),
    ],
)
def test_the_folder_of_images_is_what_all_paths_share(paths: list[str], images: str) -> None:
    assert source_config("s", {"kind": "folder", "paths": paths}).images == images
    world = source_config("s", {"kind": "folder", "paths": ["world:w/images/train"]})
    assert world.images == "world:w/images/train"
    files = {"paths": ["images/train"], "images": "images/train"}
    assert world.fingerprinted_addresses() == {"world": "w", "world_files": files}
    assert source_config("s", {"kind": "folder", "paths": ["world:w/*.png", "world:w/b/*"]}).images == "world:w/."
    with pytest.raises(ValidationError, match="no folder in common; give images"):
        source_config("s", {"kind": "folder", "paths": ["world:w/a", "a"]})


def test_paths_do_not_depend_on_where_the_folder_lies_or_what_is_in_it(
    ingest: Any, pairs: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    (whole,) = [r for r in pairs(ingest({"kind": "folder", "paths": [str(photos)]})) if r["caption"] == "a cat"]
    for path in (photos / "b").iterdir():
        path.unlink()
    (row,) = [r for r in pairs(ingest({"kind": "folder", "paths": ["photos"]})) if r["caption"] == "a cat"]
    assert row == whole
