"""Sources of images without text (`captions: none`): listed by every kind that can, in pairs whose caption is empty."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stages.base.contract import UserError
from stages.base.pairs import image_uid, is_image_only, pair_uid
from stages.ingest.plugins import source_config

A, B = "http://x.test/a.jpg", "http://x.test/b.jpg"


def parquet(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def lists(folder: Path) -> dict[str, dict[str, Any]]:
    """A list of two images in the form of each kind, most of them beside captions."""
    (folder / "one.tsv").write_text(f"{A}\n{B}\tnot used\n")
    (folder / "two.tsv").write_text(f"not used\t{A}\n\t{B}\n")
    (folder / "table.csv").write_text(f"url,caption,by\n{A},not used,Ada\n{B},,Bob\n")
    (folder / "lines.jsonl.gz").write_bytes(
        gzip.compress(f'{{"url": "{A}", "caption": 7}}\n{{"url": "{B}"}}\n'.encode())
    )
    text = pa.array([b"caf\xe9", None], pa.binary()).view(pa.string())
    laion = parquet(folder / "laion.parquet", URL=[A, B], TEXT=text, punsafe=[0.5, 0.25])
    return {
        "laion": {"kind": "laion", "paths": [laion]},
        "datacomp": {"kind": "datacomp", "paths": [parquet(folder / "plain.parquet", url=[A, B])]},
        "list of another type": {"kind": "table", "paths": [parquet(folder / "x.parquet", url=[A, B], text=[1, 2])]},
        "cc12m": {"kind": "cc12m", "paths": [str(folder / "one.tsv")]},
        "cc3m": {"kind": "cc3m", "paths": [str(folder / "two.tsv")]},
        "csv": {"kind": "table", "paths": [str(folder / "table.csv")]},
        "jsonl": {"kind": "table", "paths": [str(folder / "lines.jsonl.gz")]},
    }


@pytest.mark.parametrize("name", ["laion", "datacomp", "list of another type", "cc12m", "cc3m", "csv", "jsonl"])
def test_every_row_is_an_image_whatever_its_caption(
    ingest: Any, pairs: Any, rejects: Any, tmp_path: Path, name: str
) -> None:
    artifact = ingest({**lists(tmp_path)[name], "captions": "none"})
    rows = {row["url"]: row for row in pairs(artifact)}
    assert {url: row["caption"] for url, row in rows.items()} == {A: "", B: ""}
    assert {row["uid"] for row in rows.values()} == {pair_uid("test", A, ""), pair_uid("test", B, "")}
    assert {row["image_uid"] for row in rows.values()} == {image_uid("test", A), image_uid("test", B)}
    assert not rejects(artifact)
    assert not any("not used" in row["meta"] or "caption" in row["meta"] for row in rows.values())
    assert is_image_only(artifact)


def test_captions_that_are_listed_all_the_same_are_ignored_and_named(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    ignored = {"laion": ["TEXT"], "cc12m": ["caption"], "csv": ["caption"], "jsonl": ["caption"], "datacomp": None}
    for name, columns in ignored.items():
        folder = tmp_path / name
        folder.mkdir()
        artifact = ingest({**lists(folder)[name], "captions": "none"})
        (schema,) = artifact.read_json("preview.json")["schemas"]
        assert schema.get("ignored") == columns
        assert artifact.counts.get("files_with_ignored_captions") == (1 if columns else None)
    assert json.loads(pairs(artifact)[0]["meta"]) == {}
    csv = ingest({"kind": "table", "paths": [str(tmp_path / "csv/table.csv")], "captions": "none"})
    assert sorted(row["meta"] for row in pairs(csv)) == ['{"by":"Ada"}', '{"by":"Bob"}']


def test_a_blank_caption_is_rejected_wherever_captions_are_required(
    ingest: Any, pairs: Any, rejects: Any, tmp_path: Path
) -> None:
    path = parquet(tmp_path / "part.parquet", url=[A, B], text=["a cat", " "])
    artifact = ingest({"kind": "laion", "paths": [path]})
    assert [row["url"] for row in pairs(artifact)] == [A]
    assert [reason for _, _, reason in rejects(artifact)] == ["no_caption"]
    assert not is_image_only(artifact)
    assert "files_with_ignored_captions" not in artifact.counts


def test_who_lists_images_alone_is_told_of_the_key(ingest: Any, tmp_path: Path) -> None:
    path = parquet(tmp_path / "part.parquet", url=[A, B])
    with pytest.raises(UserError, match=r"set sources\.test\.text_column, or sources\.test\.captions=none"):
        ingest({"kind": "laion", "paths": [path]})
    blank = parquet(tmp_path / "blank.parquet", url=[A, B], text=["", None])
    with pytest.raises(UserError, match=r"mostly no_caption.*set captions=none"):
        ingest({"kind": "laion", "paths": [blank]})


def test_other_faults_of_a_row_are_found_as_ever(ingest: Any, pairs: Any, rejects: Any, tmp_path: Path) -> None:
    path = parquet(tmp_path / "part.parquet", url=[A, None, "ftp://x.test/c.jpg", A], md5=["1", "2", "3", "f" * 32])
    artifact = ingest({"kind": "laion", "paths": [path], "captions": "none"})
    assert [row["url"] for row in pairs(artifact)] == [A]
    assert [reason for _, _, reason in rejects(artifact)] == ["no_url", "other_scheme"]
    assert artifact.counts["repeats"] == 1


def test_a_folder_of_images_needs_no_file_beside_any(ingest: Any, pairs: Any, rejects: Any, tmp_path: Path) -> None:
    files = {
        "a.jpg": b"",
        "b.png": b"",
        "b.txt": b"\xff not read",
        "c.jpg": b"",
        "c.json": b'{"caption": 9, "by": "Ada"}',
        "d.txt": b"of no image",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    artifact = ingest({"kind": "folder", "paths": [str(tmp_path)], "captions": "none"})
    assert {row["path"]: (row["caption"], row["meta"]) for row in pairs(artifact)} == {
        "a.jpg": ("", "{}"),
        "b.png": ("", "{}"),
        "c.jpg": ("", '{"by":"Ada"}'),
    }
    assert [(file, reason) for file, _, reason in rejects(artifact)] == [("d.txt", "no_image")]


def test_kinds_that_are_lists_of_captions_cannot_do_without(tmp_path: Path) -> None:
    for kind in ("coco", "karpathy"):
        with pytest.raises(ValidationError, match="captions"):
            source_config("x", {"kind": kind, "paths": [str(tmp_path)], "captions": "none"})
