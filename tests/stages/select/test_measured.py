"""The claims of conf/selection/demo.yaml, measured on easy-vqa's shapes and scikit-image's photographs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image, ImageEnhance

from stages.imagehash import decode_rgb, perceptual_signature, pixel_sha256
from stages.select.config import Near, SelectionConfig
from stages.select.duplicates import NONE, best_first, near_copies
from stages.select.likeness import Pictures, confirmed, same_pictures

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def near() -> Near:
    text = (ROOT / "conf" / "selection" / "demo.yaml").read_text("utf-8")
    selection = SelectionConfig.model_validate(yaml.safe_load(text))
    assert selection.duplicates.near == selection.contamination.near
    assert selection.duplicates.near is not None
    return selection.duplicates.near


def signatures(images: list[Image.Image]) -> pa.Table:
    rows = [
        {
            "image_uid": f"{n:05}",
            "width": i.width,
            "height": i.height,
            "bytes": 0,
            "pixel_sha256": pixel_sha256(i),
            **perceptual_signature(i),
        }
        for n, i in enumerate(images)
    ]
    return pa.Table.from_pylist(rows)


def saved_again(image: Image.Image, quality: int = 85) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return decode_rgb(out.getvalue())


def resized(image: Image.Image) -> Image.Image:
    side = (round(image.width * 0.9), round(image.height * 0.9))
    return image.resize(side, Image.Resampling.LANCZOS)


def recall(originals: list[Image.Image], copies: list[Image.Image], near: Near) -> float:
    a, b = (Pictures.of(signatures(images), near.hash) for images in (originals, copies))
    close = np.bitwise_count(a.words ^ b.words).sum(axis=1) <= near.radius
    return float((close & confirmed(a.thumbnails, b.thumbnails, near)).mean())


@pytest.fixture(scope="module")
def shapes() -> tuple[list[Image.Image], list[Image.Image]]:
    easy_vqa = pytest.importorskip("easy_vqa")
    paths = easy_vqa.get_train_image_paths(), easy_vqa.get_test_image_paths()
    return tuple([decode_rgb(Path(files[n]).read_bytes()) for n in sorted(files)] for files in paths)  # type: ignore[return-value]


def test_no_shape_is_taken_for_another(shapes, near: Near) -> None:
    train, test = (signatures(images) for images in shapes)
    assert len(set(train["pixel_sha256"].to_pylist()) | set(test["pixel_sha256"].to_pylist())) == 5000
    assert (near_copies(train, best_first(train), near) == NONE).all()
    a, b = Pictures.of(train, near.hash), Pictures.of(test, near.hash)
    assert not list(same_pictures(a, b, near))
    # What the confirmation on thumbnails is for.
    alone = near.model_copy(update={"max_difference": None, "max_relative_difference": None})
    assert (near_copies(train, best_first(train), alone) != NONE).sum() > 2900


def test_leaked_shapes_are_found_when_saved_again(shapes, near: Near) -> None:
    leaked = shapes[1][::4]
    assert recall(leaked, leaked, near) == 1
    assert recall(leaked, [saved_again(image) for image in leaked], near) >= 0.99
    assert recall(leaked, [resized(image) for image in leaked], near) >= 0.99


def test_copies_of_photographs_are_found(near: Near) -> None:
    skimage = pytest.importorskip("skimage")
    folder = Path(skimage.__file__).parent / "data"
    photographs = [decode_rgb(f.read_bytes()) for f in sorted(folder.glob("*")) if f.suffix in (".png", ".jpg")]
    assert len(photographs) >= 20
    assert recall(photographs, [saved_again(image) for image in photographs], near) == 1
    assert recall(photographs, [resized(image) for image in photographs], near) == 1
    brighter = [ImageEnhance.Brightness(image).enhance(1.1) for image in photographs]
    assert recall(photographs, brighter, near) >= 0.8
