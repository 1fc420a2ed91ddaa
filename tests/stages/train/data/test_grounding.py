"""Regions: boxes and words that stay true of what the model is shown, however it is cropped and flipped."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from stages.base.contract import UserError
from stages.tokenizer.load import LoadedTokenizer
from stages.train.config import AugmentationConfig
from stages.train.data.annotated import AnnotatedDataset
from stages.train.data.annotated_files import AnnotatedFiles
from stages.train.data.augment import draw_crop, draws_flip, sample_random, training_pixels
from stages.train.data.crop import Crop, boxes_of_bins, location_bins
from stages.train.data.decode import decode, image_size
from stages.train.data.flip_text import flip_text

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
VARIED = AugmentationConfig(crop_scale=(0.2, 1.0), horizontal_flip=0.5)


def made_tokenizer(locations: int) -> LoadedTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: i + 3 for i, token in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    names = ["<referring>", "<region_caption>", *(f"<loc_{i}>" for i in range(locations))]
    made.add_tokens([AddedToken(name, normalized=False) for name in names])
    return LoadedTokenizer(made)


@pytest.fixture(scope="module")
def tokenizer() -> LoadedTokenizer:
    return made_tokenizer(1000)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> AnnotatedFiles:
    """Four images with one red region each, of varied places and captions; the first has a second region."""
    root = tmp_path_factory.mktemp("regions")
    regions = [
        (0, [30, 40, 60, 50], "the red thing on the left"),
        (0, [80, 100, 20, 20], "no side"),
        (1, [200, 10, 90, 70], "rightmost"),
        (2, [5, 5, 290, 190], "Left to a longer end"),
        (3, [140, 90, 30, 60], "the cup right behind it"),
    ]
    for image in range(4):
        pixels = np.zeros((200, 300, 3), dtype=np.uint8)
        x, y, w, h = next(box for owner, box, _ in regions if owner == image)
        pixels[y : y + h, x : x + w, 0] = 255
        Image.fromarray(pixels).save(root / f"{image}.png")
    rows = [{"image_id": owner, "bbox": box, "caption": caption} for owner, box, caption in regions]
    (root / "regions.json").write_text(json.dumps({"annotations": rows}))
    return AnnotatedFiles(str(root / "regions.json"), None, str(root), "{image_id}.png", regions=True)


def dataset(files: AnnotatedFiles, tokenizer: LoadedTokenizer, **options: Any) -> AnnotatedDataset:
    defaults = {"prompt": "<referring> {}", "texts_per_image": 2, "max_tokens": 40, "seed": 0}
    return AnnotatedDataset(files, tokenizer, **{**defaults, **options})


def bins_in(tokenizer: LoadedTokenizer, ids: Any) -> list[int]:
    first = tokenizer.token_id("<loc_0>")
    return [int(i) - first for i in ids if i >= first]


def seen(sample: Any, epoch: int) -> tuple[Crop, np.ndarray]:
    draw = sample_random(0, epoch, sample.seed)
    crop = draw_crop(*image_size(sample.image), sample.boxes, sample.flippable, VARIED, draw)
    return crop, training_pixels(lambda s: decode(sample.image, s), crop, 128, VARIED, ZERO, ONE, draw)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_tokens_name_the_object_in_the_pixels_that_are_shown(
    files: Any, tokenizer: LoadedTokenizer, number: int
) -> None:
    data = dataset(files, tokenizer)
    views = set()
    for epoch in range(30):
        sample = data.sample(number, epoch)
        crop, pixels = seen(sample, epoch)
        views.add((crop.box, crop.flipped))
        (text,) = sample.texts(crop)
        left, top, right, bottom = (b / 1000 * 128 for b in bins_in(tokenizer, text.target))
        y, x = np.nonzero(pixels[0] > 0.5)
        found = (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert np.abs(np.subtract(found, (left, top, right, bottom))).max() <= 1.5
    assert len(views) > 15 or number == 2  # whose box leaves no choice
    assert len({flipped for _, flipped in views}) == (1 if number == 3 else 2)  # "right behind" may be no side


@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
def test_totals_count_the_words_that_are_written_in_each_view(
    files: Any, tokenizer: LoadedTokenizer, flip: float
) -> None:
    data = dataset(files, tokenizer, prompt="{box} is", max_tokens=30)
    varied = VARIED.model_copy(update={"horizontal_flip": flip})
    numbers, epochs = np.repeat(np.arange(4), 9), np.tile(np.arange(9), 4)
    tokens, flipped = 0, 0
    for number, epoch in zip(numbers.tolist(), epochs.tolist(), strict=True):
        sample = data.sample(number, epoch)
        draw = sample_random(0, epoch, sample.seed)
        crop = draw_crop(300, 200, sample.boxes, sample.flippable, varied, draw)
        flipped += crop.flipped
        tokens += sum(len(text.target) for text in sample.texts(crop))
    totals = data.totals(numbers, epochs, lambda seed, epoch: draws_flip(varied, 0, epoch, seed))
    assert totals.target_tokens == tokens
    assert (flipped > 0) == (flip > 0)
    unflipped = data.totals(numbers, epochs, lambda seed, epoch: False).target_tokens
    assert (tokens != unflipped) == (flip > 0), "left and right have as many tokens: nothing is tested"


def test_words_swap_sides_when_the_view_is_mirrored_and_only_then(files: Any, tokenizer: LoadedTokenizer) -> None:
    data = dataset(files, tokenizer, texts_per_image=1)

    def prompt(number: int, epoch: int, flipped: bool) -> str:
        (text,) = data.sample(number, epoch).texts(Crop(300, 200, (0, 0, 300, 200), flipped))
        return tokenizer.decode(list(text.prompt))

    for flipped, side in ((False, "left"), (True, "right")):
        assert {prompt(0, e, flipped) for e in (0, 1)} == {
            f"<referring> the red thing on the {side}",
            "<referring> no side",
        }
    assert prompt(1, 0, True) == "<referring> leftmost"
    assert prompt(2, 0, True) == "<referring> Right to a longer end"


def test_the_other_direction_asks_with_the_box_and_writes_the_words(files: Any, tokenizer: LoadedTokenizer) -> None:
    data = dataset(files, tokenizer, prompt="<region_caption> {box}:")
    (text,) = data.sample(1, 0).texts(Crop(300, 200, (100, 0, 300, 100), flipped=True))
    # 200..290 of a crop from 100 to 300, flipped: 10..100 of 200; 10..80 of 100.
    assert bins_in(tokenizer, text.prompt) == [50, 100, 500, 800]
    assert tokenizer.decode(list(text.prompt)) == "<region_caption> <loc_50><loc_100><loc_500><loc_800>:"
    assert tokenizer.decode(list(text.target[:-1])) == " leftmost"
    assert text.target[-1] == 2


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 3), st.integers(0, 50), st.sampled_from([5, 20, 99]), st.sampled_from(["<referring> {}", "{box} is"])
)
def test_lengths_hold_in_any_view(
    files: Any, tokenizer: LoadedTokenizer, number: int, epoch: int, longest: int, prompt: str
) -> None:
    data = dataset(files, tokenizer, prompt=prompt, max_tokens=longest)
    sample = data.sample(number, epoch)
    both = [sample.texts(Crop(300, 200, (0, 0, 300, 200), flipped)) for flipped in (False, True)]
    made = [text for texts in both for text in texts]
    assert data.lengths(number, epoch) == (max(len(t.prompt) for t in made), max(len(t.target) for t in made))
    assert all((t.prompt >= 0).all() and (t.target >= 0).all() for t in made)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(8, 700), st.integers(8, 700), st.floats(0.05, 1))
def test_a_crop_holds_all_boxes_and_gives_them_back(seed: int, width: int, height: int, low: float) -> None:
    draw = random.Random(seed)
    edges = np.array([[sorted((draw.uniform(0, n), draw.uniform(0, n))) for n in (width, height)] for _ in range(2)])
    boxes = edges.transpose(0, 2, 1).reshape(2, 4).astype(np.float32)
    config = AugmentationConfig(crop_scale=(low, 1.0), horizontal_flip=0.5)
    crop = draw_crop(width, height, boxes, True, config, draw)
    left, top, right, bottom = crop.box
    assert 0 <= left <= boxes[:, 0].min()
    assert 0 <= top <= boxes[:, 1].min()
    assert boxes[:, 2].max() <= right <= width
    assert boxes[:, 3].max() <= bottom <= height
    back = boxes_of_bins(location_bins(boxes, crop), crop)
    tolerance = np.array([right - left, bottom - top] * 2) / 1000
    assert (np.abs(back - boxes) <= tolerance).all()


def test_bins_are_those_florence_2_writes() -> None:
    crop = Crop.whole(500, 2000)
    # floor(x / 0.5), floor(y / 2); the far edge is the last bin; what lies outside is cut off.
    boxes = np.array([[0, 0, 500, 2000], [0.49, 3, 0.5, 4], [-9, 1999, 700, 2100]], dtype=np.float32)
    assert location_bins(boxes, crop).tolist() == [[0, 0, 999, 999], [0, 1, 1, 2], [0, 999, 999, 999]]


@pytest.mark.parametrize(
    ("text", "flipped"),
    [
        ("Left-hand cup, RIGHT of the leftmost one", "Right-hand cup, LEFT of the rightmost one"),
        ("guy on the left in the back", "guy on the right in the back"),
        ("lft guy", "rt guy"),
        ("bright leftover cleft", "bright leftover cleft"),
        ("man right behind her", None),
        ("the last slice that is left", None),
        ("turned clockwise", None),
    ],
)
def test_sides_swap_only_where_they_are_sides(text: str, flipped: str | None) -> None:
    assert flip_text(text) == flipped


def test_a_tokenizer_without_locations_is_refused(files: AnnotatedFiles) -> None:
    with pytest.raises(UserError, match=r"has no <loc_999>.*tokenizer\.location_tokens=1000"):
        dataset(files, made_tokenizer(999))


@pytest.mark.parametrize("bbox", [None, [1, 2, 3], [1, 2, 0, 4], [1, 2, 3, float("nan")], "1234", [1, 2, "3", 4]])
def test_a_malformed_box_is_named_by_record(tmp_path: Path, tokenizer: LoadedTokenizer, bbox: Any) -> None:
    rows = [{"image_id": 0, "bbox": [0, 0, 1, 1], "caption": "a"}, {"image_id": 0, "bbox": bbox, "caption": "a"}]
    (tmp_path / "r.json").write_text(json.dumps({"annotations": rows}))
    with pytest.raises(UserError, match=r"1 malformed \(bbox .*\): annotation number 1"):
        dataset(AnnotatedFiles(str(tmp_path / "r.json"), None, ".", "{image_id}", regions=True), tokenizer)


def test_a_box_outside_its_image_is_the_users_to_mend(files: AnnotatedFiles, tokenizer: LoadedTokenizer) -> None:
    sample = dataset(files, tokenizer).sample(1, 0)
    with pytest.raises(UserError, match="bbox of image 1 lies outside of it, which has 100 x 80 pixels"):
        sample.texts(Crop.whole(100, 80))


def test_pixels_do_not_depend_on_where_boxes_are_when_nothing_is_cropped() -> None:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(data, "PNG")
    config = AugmentationConfig(horizontal_flip=0.5)
    for epoch in range(4):
        plain, boxed = (
            draw_crop(40, 30, boxes, True, config, sample_random(0, epoch, "a"))
            for boxes in (None, np.array([[1, 2, 3, 4]], dtype=np.float32))
        )
        assert plain == boxed
