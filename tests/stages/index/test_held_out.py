"""What a benchmark holds out: the images and texts that its files list, in each of the public formats."""

from __future__ import annotations

import json
import tempfile
import uuid
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.fingerprint import fingerprinted
from stages.base.contract import UserError
from stages.base.tasks import InProcess
from stages.evaluate.config import CaptionBenchmark, VqaBenchmark
from stages.index.benchmarks import hashed
from stages.index.config import BenchmarkImages
from stages.index.held_out import HeldOut, held_out

KARPATHY = {
    "images": [
        {"filename": "a.jpg", "cocoid": 1, "split": "test", "sentences": [{"raw": "one"}, {"raw": "two"}]},
        {"filename": "b.jpg", "cocoid": 2, "split": "train", "sentences": [{"raw": "three"}]},
        {"filename": "c.jpg", "cocoid": 3, "split": "val", "sentences": []},
    ]
}
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [{"image_id": 2, "caption": "four"}],
}
VQA = {"questions": [{"question_id": 5, "image_id": 7, "question": "what"}]}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg", "COCO_000000000007.jpg", "notes.txt"):
        (tmp_path / "images" / name).write_bytes(b"")
    for name, content in (("karpathy", KARPATHY), ("coco", COCO), ("vqa", VQA)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def outside(place: Path, file: str, **more: object) -> BenchmarkImages:
    return BenchmarkImages.model_validate({"images": str(place / "images"), "texts": [str(place / file)], **more})


def test_karpathys_split_alone_is_held_out(place: Path) -> None:
    found = held_out("b", outside(place, "karpathy.json", image_pattern="{file_name}"), {})
    assert (found.files, found.texts) == (["a.jpg"], ["one", "two"])
    other = outside(place, "karpathy.json", image_pattern="{file_name}", karpathy_split="train")
    assert held_out("b", other, {}).files == ["b.jpg"]
    with pytest.raises(UserError, match=r"benchmarks\.b: no image of split 'rest'"):
        held_out("b", outside(place, "karpathy.json", karpathy_split="rest"), {})


def test_images_with_a_reference_or_a_question_are_held_out(place: Path) -> None:
    found = held_out("b", outside(place, "coco.json", image_pattern="{file_name}"), {})
    assert (found.files, found.texts) == (["b.jpg"], ["four"])
    found = held_out("b", outside(place, "vqa.json", image_pattern="COCO_{image_id:012d}.jpg"), {})
    assert (found.files, found.texts) == (["COCO_000000000007.jpg"], ["what"])


def test_without_a_pattern_all_images_of_the_folder_are(place: Path) -> None:
    found = held_out("b", BenchmarkImages(images=str(place / "images")), {})
    assert found.files == ["COCO_000000000007.jpg", "a.jpg", "b.jpg", "c.jpg"]
    assert found.texts == []
    for name in ("d.AVIF", "e.jp2", "f.ico", "g.ppm", "h.tiff", "i.svg"):
        (place / "images" / name).write_bytes(b"")
    found = held_out("b", BenchmarkImages(images=str(place / "images")), {})
    assert found.files[4:] == ["d.AVIF", "e.jp2", "f.ico", "g.ppm", "h.tiff"]


def test_files_in_a_world_are_known_by_their_manifest(world) -> None:
    files = {
        "i/1.png": b"1",
        "i/2.png": b"2",
        "q.json": json.dumps({"questions": [{"question_id": 1, "image_id": 2, "question": "?"}]}).encode(),
    }
    made = world(files)
    where = BenchmarkImages(images="world:w/i", texts=("world:w/q.json",), image_pattern="{image_id}.png")
    found = held_out("b", where, {"worlds": (made,)})
    assert found.files == ["i/2.png"]
    assert len(found.sha256["i/2.png"]) == 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"questions": [{"question_id": 1, "image_id": 9, "question": "?"}]}',
            r"it lists COCO_000000000009\.jpg, which is not in",
        ),
        (
            '{"questions": [{"question_id": 1, "question": "?"}]}',
            r"no question in it .*1 malformed \(no image_id\): question 1",
        ),
        (
            '{"questions": [{"image_id": 1, "question": "?"}]}',
            r"no question in it that can be used \(1 malformed \(no question_id\)",
        ),
        ('{"questions": {}}', r"no list 'questions'"),
        ('{"questions": []}', "no question in it"),
        ('{"images": [{"file_name": "a.jpg"}], "annotations": []}', "an image in .* has no id"),
        ("[]", "is it the right file"),
        ("{", "is not JSON"),
    ],
)
def test_a_list_that_is_wrong_is_named(place: Path, content: str, message: str) -> None:
    (place / "vqa.json").write_text(content)
    with pytest.raises(UserError, match=rf"benchmarks\.b: .*{message}"):
        held_out("b", outside(place, "vqa.json", image_pattern="COCO_{image_id:012d}.jpg"), {})


def test_a_pattern_that_asks_for_something_else_is_refused(place: Path) -> None:
    with pytest.raises(UserError, match=r"benchmarks\.b\.image_pattern=\{number\}: write it with \{image_id\}"):
        held_out("b", outside(place, "vqa.json", image_pattern="{number}"), {})


def test_what_is_not_there_is_named(place: Path) -> None:
    with pytest.raises(UserError, match=r"benchmarks\.b: no folder nowhere"):
        held_out("b", BenchmarkImages(images="nowhere"), {})
    with pytest.raises(UserError, match=r"benchmarks\.b: no file .*gone\.json"):
        held_out("b", outside(place, "gone.json"), {})
    (place / "empty").mkdir()
    with pytest.raises(UserError, match=r"benchmarks\.b: no image in"):
        held_out("b", BenchmarkImages(images=str(place / "empty")), {})


def test_a_held_out_file_that_is_no_image_is_named(place: Path) -> None:
    found = held_out("b", outside(place, "coco.json", image_pattern="{file_name}"), {})
    with pytest.raises(UserError, match=r"benchmarks\.b: b\.jpg is not an image"):
        hashed(InProcess(), {"b": found}, str(place / "cache"))


def test_one_more_image_hashes_no_other_again(scene, as_bytes, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    where = BenchmarkImages(images=str(tmp_path / "images"))
    for n in range(3):
        (tmp_path / "images" / f"{n}.png").write_bytes(as_bytes(scene(n)))
    first = hashed(InProcess(), {"b": held_out("b", where, {})}, str(tmp_path / "cache"))
    again = hashed(InProcess(), {"b": held_out("b", where, {}), "a": held_out("a", where, {})}, str(tmp_path / "cache"))
    assert len(list((tmp_path / "cache").rglob("*.parquet"))) == 1
    assert again["benchmark"].to_pylist() == ["a"] * 3 + ["b"] * 3
    assert again.slice(3).equals(first)


def test_where_a_folder_lies_is_not_part_of_what_is_indexed(place: Path) -> None:
    here, there = (BenchmarkImages(images=f"{p}/x", texts=(f"{p}/t.json",)) for p in ("here", "there"))
    assert fingerprinted(here) == fingerprinted(there)
    one, other = (BenchmarkImages(images=f"world:w/{folder}") for folder in ("x", "y"))
    assert fingerprinted(one) != fingerprinted(other)
    for wrong, message in (
        ({}, "Field required"),
        ({"images": "x", "image_pattern": "{image_id}.png"}, "needs the file"),
    ):
        with pytest.raises(ValidationError, match=message):
            BenchmarkImages.model_validate(wrong)


def test_a_configured_benchmark_says_what_it_holds_out() -> None:
    vqa = VqaBenchmark.model_validate(
        {
            "kind": "vqa",
            "split": "val",
            "questions": "q.json",
            "annotations": "a.json",
            "images": "i",
            "image_pattern": "COCO_{image_id:012d}.jpg",
            "prompt": "{}",
            "max_new_tokens": 1,
        }
    )
    where = BenchmarkImages.model_validate(vqa.held_out())
    assert (where.images, where.texts, where.image_pattern) == ("i", ("q.json",), "COCO_{image_id:012d}.jpg")
    captions = CaptionBenchmark.model_validate(
        {
            "kind": "captions",
            "split": "s",
            "references": "world:w/r.json",
            "images": "world:w/i",
            "karpathy_split": "val",
            "max_new_tokens": 1,
        }
    )
    where = BenchmarkImages.model_validate(captions.held_out())
    assert (where.images, where.texts, where.karpathy_split) == ("world:w/i", ("world:w/r.json",), "val")


def test_hashes_from_a_remote_cache_leave_no_copy_behind(tmp_path, monkeypatch, scene, as_bytes) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(as_bytes(scene(1)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    held = {"b": HeldOut(str(tmp_path / "images"), ["a.png"], [], {})}
    cache = f"memory://benchmarks-{uuid.uuid4().hex}"
    first, again = (hashed(InProcess(), held, cache) for _ in range(2))
    assert first.equals(again)
    assert list((tmp_path / "temporary").iterdir()) == []
