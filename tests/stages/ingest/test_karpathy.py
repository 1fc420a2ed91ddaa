"""Karpathy's splits: which captions are trained on, and where their images are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def splits(tmp_path: Path) -> str:
    """A small `dataset_coco.json`: two images to train on, two to score on."""
    images = [
        {
            "filepath": "val2014" if split == "restval" else "train2014",
            "filename": f"{n}.jpg",
            "imgid": n,
            "cocoid": 100 + n,
            "split": split,
            "sentids": [2 * n, 2 * n + 1],
            "sentences": [
                {"raw": f"Image {n}, said {k}.", "tokens": ["image"], "imgid": n, "sentid": 2 * n + k} for k in range(2)
            ],
        }
        for n, split in enumerate(("train", "restval", "val", "test"))
    ]
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps({"dataset": "coco", "images": images}))
    return str(path)


def test_train_is_train_and_restval_and_the_rest_is_accounted_for(
    ingest: Any, pairs: Any, rejects: Any, splits: str
) -> None:
    artifact = ingest({"kind": "karpathy", "paths": [splits], "images": "/coco"})
    assert {row["path"] for row in pairs(artifact)} == {"train2014/0.jpg", "val2014/1.jpg"}
    assert Counter(reason for _, _, reason in rejects(artifact)) == {"other_split": 4}
    assert artifact.counts["images"] == 2
    row = next(row for row in pairs(artifact) if row["caption"] == "Image 1, said 0.")
    assert json.loads(row["meta"]) == {"imgid": 1, "cocoid": 101, "split": "restval", "sentid": 2}


def test_splits_and_the_address_of_images_can_be_chosen(ingest: Any, pairs: Any, splits: str) -> None:
    fields = {"kind": "karpathy", "paths": [splits], "splits": ["test"], "url_prefix": "http://x.test/"}
    assert {row["url"] for row in pairs(ingest(fields))} == {"http://x.test/train2014/3.jpg"}


def test_flickr_has_no_folders(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    image = {"filename": "1.jpg", "split": "train", "sentences": [{"raw": "A dog ."}]}
    (tmp_path / "dataset_flickr30k.json").write_text(json.dumps({"images": [image]}))
    fields = {"kind": "karpathy", "paths": [str(tmp_path / "dataset_flickr30k.json")], "images": "/flickr"}
    assert [row["path"] for row in pairs(ingest(fields))] == ["1.jpg"]
