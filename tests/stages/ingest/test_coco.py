"""COCO captions: five captions of one photograph, local images, damaged annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.base.contract import UserError


@pytest.fixture
def captions(tmp_path: Path) -> str:
    """A small `captions_*.json` with two images, one of them with two captions, and three bad annotations."""
    content = {
        "licenses": [{"id": 4, "url": "http://cc.test/by", "name": "Attribution"}],
        "images": [
            {"id": 9, "file_name": "9.jpg", "coco_url": "http://x.test/9.jpg", "license": 4, "width": 6, "height": 5},
            {"id": 7, "file_name": "../7.jpg", "coco_url": "http://x.test/7.jpg"},
        ],
        "annotations": [
            {"id": 1, "image_id": 9, "caption": "a cat"},
            {"id": 2, "image_id": 9, "caption": "a sleeping cat"},
            {"id": 3, "image_id": 8, "caption": "nobody's"},
            {"id": 4, "image_id": 9},
            {"id": 5, "image_id": 9, "caption": "half of a pair \ud83d"},
            {"id": 6, "image_id": 7, "caption": "a dog"},
        ],
    }
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_captions_of_one_photograph_are_pairs_of_one_image(ingest: Any, pairs: Any, captions: str) -> None:
    rows = [row for row in pairs(ingest({"kind": "coco", "paths": [captions]})) if row["url"] == "http://x.test/9.jpg"]
    assert len({row["uid"] for row in rows}) == 2
    assert len({row["image_uid"] for row in rows}) == 1
    assert {row["license"] for row in rows} == {"http://cc.test/by"}
    assert {row["path"] for row in rows} == {None}
    assert json.loads(rows[0]["meta"]).keys() == {"image_id", "width", "height", "annotation_id"}


def test_bad_annotations_are_rejected_by_their_number(ingest: Any, rejects: Any, captions: str) -> None:
    assert rejects(ingest({"kind": "coco", "paths": [captions]})) == [
        ("captions.json", 2, "no_such_image"),
        ("captions.json", 3, "no_caption"),
        ("captions.json", 4, "not_utf8"),
    ]


def test_with_a_folder_of_images_the_path_is_listed_and_none_leads_out_of_it(
    ingest: Any, pairs: Any, rejects: Any, captions: str
) -> None:
    artifact = ingest({"kind": "coco", "paths": [captions], "images": "/photos"})
    assert {(row["url"], row["path"]) for row in pairs(artifact)} == {(None, "9.jpg")}
    assert ("captions.json", 5, "bad_path") in rejects(artifact)


def test_another_json_file_is_refused_by_name(ingest: Any, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(UserError, match=r"sources.test: 1 of 1 .*other.json \(it is not COCO caption JSON"):
        ingest({"kind": "coco", "paths": [str(tmp_path / "other.json")]})


def test_real_coco_captions_all_come_through(ingest: Any, shared: Path) -> None:
    files = sorted((shared / "data/coco").rglob("*captions*.json"))
    if not files:
        pytest.skip("no COCO captions in the shared data")
    listed = sum(len(json.loads(file.read_text())["annotations"]) for file in files)
    artifact = ingest({"kind": "coco", "paths": [str(file) for file in files], "images": "photos"})
    assert artifact.counts["rows"] == listed
    assert artifact.counts["rejects"] == 0
    assert artifact.counts["pairs"] + artifact.counts["repeats"] == listed
