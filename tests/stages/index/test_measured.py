"""The claims of docs/duplicates.md and conf/selection/demo.yaml, on easy-vqa's shapes and real photographs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageEnhance, ImageOps

from stages.imaging.decode import decode_rgb
from stages.imaging.perceptual_hash import (
    hash_words,
    patch_array,
    perceptual_signature,
    pixel_sha256,
    thumbnail_array,
)
from stages.index.config import Hash
from stages.index.matches import Pictures, near_matches
from stages.index.windows import textured
from stages.select.config import Near, SelectionConfig
from stages.select.duplicates import confirmed

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def near() -> Near:
    text = (ROOT / "conf" / "selection" / "demo.yaml").read_text("utf-8")
    selection = SelectionConfig.model_validate(yaml.safe_load(text))
    assert selection.duplicates.near == selection.contamination.near
    assert selection.duplicates.near is not None
    return selection.duplicates.near


def pictures(images: Sequence[Image.Image], hash: Hash = "phash") -> Pictures:
    rows = [perceptual_signature(image) for image in images]
    return Pictures(hash, hash_words([r[hash] for r in rows], 64), thumbnail_array([r["thumbnail"] for r in rows]))


def saved_again(image: Image.Image, quality: int = 85) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return decode_rgb(out.getvalue())


def resized(image: Image.Image) -> Image.Image:
    side = (round(image.width * 0.9), round(image.height * 0.9))
    return image.resize(side, Image.Resampling.LANCZOS)


def cropped(image: Image.Image) -> Image.Image:
    x, y = image.width * 0.025, image.height * 0.025
    return image.crop((round(x), round(y), round(image.width - x), round(image.height - y)))


def recall(originals: Sequence[Image.Image], copies: Sequence[Image.Image], near: Near, hash: Hash = "phash") -> float:
    rows = np.arange(len(originals))
    compared = pictures(originals, hash).compare(rows, pictures(copies, hash), rows)
    return float(confirmed(compared, near).mean())


@pytest.fixture(scope="module")
def shapes() -> tuple[list[Image.Image], list[Image.Image]]:
    easy_vqa = pytest.importorskip("easy_vqa")
    paths = easy_vqa.get_train_image_paths(), easy_vqa.get_test_image_paths()
    return tuple([decode_rgb(Path(files[n]).read_bytes()) for n in sorted(files)] for files in paths)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    skimage = pytest.importorskip("skimage")
    folder = Path(skimage.__file__).parent / "data"
    found = [decode_rgb(file.read_bytes()) for file in sorted(folder.glob("*")) if file.suffix in (".png", ".jpg")]
    assert len(found) >= 20
    return found


def test_no_shape_is_taken_for_another(shapes, near_copies, near: Near) -> None:
    train, test = (pictures(images) for images in shapes)
    assert len({pixel_sha256(image) for images in shapes for image in images}) == 5000
    found = near_copies(train, near.radius, rows=1000).edges
    assert not confirmed(found, near).any()
    assert not confirmed(near_matches(train, test, near.radius, 10**6), near).any()
    # What the confirmation on thumbnails is for.
    assert found.num_rows > 20_000


def test_leaked_shapes_are_found_when_saved_again(shapes, near: Near) -> None:
    leaked = shapes[1][::4]
    assert recall(leaked, leaked, near) == 1
    assert recall(leaked, [saved_again(image) for image in leaked], near) >= 0.99
    assert recall(leaked, [resized(image) for image in leaked], near) >= 0.99


def test_copies_of_photographs_are_found(photographs, near: Near) -> None:
    assert recall(photographs, [saved_again(image) for image in photographs], near) == 1
    assert recall(photographs, [resized(image) for image in photographs], near) == 1
    brighter = [ImageEnhance.Brightness(image).enhance(1.1) for image in photographs]
    assert recall(photographs, brighter, near) >= 0.8


def test_cropped_photographs_are_found_by_the_looser_bounds_alone(photographs, near: Near) -> None:
    copies = [cropped(image) for image in photographs]
    loose = near.model_copy(update={"max_difference": 12.0, "max_relative_difference": 0.3})
    assert recall(photographs, copies, near) < 0.3
    assert recall(photographs, copies, loose) > 0.6


def test_mirrored_photographs_are_found_by_the_hash_for_it(photographs, near: Near) -> None:
    mirrored = [ImageOps.mirror(image) for image in photographs]
    assert recall(photographs, mirrored, near, "phash_d4") >= 0.9
    assert recall(photographs, mirrored, near) < 0.2


def test_no_shape_is_looked_for_as_a_crop(shapes) -> None:
    for images in (shapes[0][::4], shapes[1]):
        assert not textured(patch_array([perceptual_signature(image)["patch"] for image in images])).any()
