"""Local images take the same road; of private ones nothing but uid and figures is written down."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def test_local_images_come_from_the_ingest_artifact_or_the_source_folder(
    folder: Path,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    attempts: Callable[..., Any],
) -> None:
    (folder / "b.jpg").write_bytes(make_picture(1))
    (folder / "c.txt").write_bytes(b"no picture " * 20)
    (folder / "d").mkdir()
    absolute = str(folder / "b.jpg")
    pairs = pairs_of(
        paths=["images/a.png", "b.jpg", "c.txt", "d", "e.jpg", "f\0.jpg", absolute],
        files={"images/a.png": make_picture(2, form="PNG")},
    )

    rows = attempts(download(pairs, source={"images": str(folder)}))

    assert {path: row["status"] for path, row in rows.items()} == {
        "images/a.png": "success",
        "b.jpg": "success",
        absolute: "success",
        "c.txt": "not_an_image",
        "d": "unreadable_file",
        "e.jpg": "missing_file",
        "f\0.jpg": "missing_file",
    }


def test_rows_of_a_private_source_tell_neither_place_nor_details(
    folder: Path,
    make_picture: Callable[..., bytes],
    pairs_of: Callable[..., Any],
    download: Callable[..., Any],
    attempts: Callable[..., Any],
) -> None:
    pairs = pairs_of(paths=["doe_john.png", "gone.png"], files={"doe_john.png": make_picture(form="PNG")})

    artifact = download(pairs, source={"images": str(folder), "private": True})

    rows = list(attempts(artifact).values())
    assert sorted(row["status"] for row in rows) == ["missing_file", "success"]
    assert all(row["url"] is row["path"] is row["error"] is None for row in rows)


def test_each_file_of_pairs_is_a_partition_of_its_own(
    make_picture: Callable[..., bytes], pairs_of: Callable[..., Any], download: Callable[..., Any]
) -> None:
    files = {f"images/{n}.jpg": make_picture(n) for n in range(5)}
    artifact = download(pairs_of(paths=list(files), files=files, per_file=2))
    assert artifact.names("raw-*.tar") == ["raw-00000.tar", "raw-00001.tar", "raw-00002.tar"]
    assert artifact.counts["success"] == 5


def test_a_list_without_rows_makes_an_empty_shard(
    pairs_of: Callable[..., Any], download: Callable[..., Any], attempts: Callable[..., Any]
) -> None:
    pairs = pairs_of(paths=["x.jpg"])
    name = pairs.path("pairs-00000.parquet")
    pq.write_table(pq.read_table(name).slice(0, 0), name)
    artifact = download(pairs)
    assert attempts(artifact) == {}
    assert artifact.counts["images"] == 0
    with tarfile.open(artifact.path("raw-00000.tar")) as tar:
        assert tar.getnames() == []
