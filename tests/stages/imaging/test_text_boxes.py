"""The text detector: planted words are found, plain pictures are not, equal images give equal boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

import stages.imaging.text_boxes
from stages.base.contract import UserError
from stages.imaging.text_boxes import Box, TextDetector, coverage, covered, require_detector


@pytest.fixture(scope="module")
def detector() -> TextDetector:
    return TextDetector()


def _written(image: Image.Image, words: str, height: int, fill: Any = (255, 255, 255)) -> tuple[int, int, int, int]:
    """Write at (60, 80); returns left, top, right, bottom of the ink."""
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(height)
    pen.text((60, 80), words, fill=fill, font=font)
    left, top, right, bottom = pen.textbbox((60, 80), words, font=font)
    return int(left), int(top), int(right), int(bottom)


@pytest.mark.parametrize("height", [10, 16, 24, 40])
def test_words_are_found_where_they_are(detector: TextDetector, scene: Callable[..., Any], height: int) -> None:
    image = scene(3, 480, 360)
    left, top, right, bottom = _written(image, "Mesh 4711", height, (0, 0, 0))
    boxes = detector.boxes(image)
    mask = covered(boxes, image.size)
    assert mask[top + 2 : bottom - 2, left + 2 : right - 2].mean() > 0.95
    # Not much more than the words: a line's height around them.
    assert mask.sum() < 3.5 * (right - left) * (bottom - top)
    assert all(0.5 <= box.score <= 1 for box in boxes)


def test_a_picture_without_words_has_no_boxes(detector: TextDetector) -> None:
    slope = Image.linear_gradient("L").resize((300, 200))
    disc = Image.radial_gradient("L").resize((300, 200))
    assert [detector.boxes(image) for image in (slope, disc, slope.rotate(90), Image.new("RGB", (300, 200)))] == [
        []
    ] * 4


def test_any_mode_and_size_is_taken_and_boxes_stay_inside(detector: TextDetector, scene: Callable[..., Any]) -> None:
    for size in ((1, 1), (3, 900), (64, 64), (700, 31)):
        for mode in ("RGB", "L", "RGBA", "P", "1", "CMYK"):
            image = Image.new("RGB", size, (30, 30, 30))
            ImageDraw.Draw(image).text((-4, -2), "OUTSIDE", fill=(255, 255, 255), font=ImageFont.load_default(24))
            for box in detector.boxes(image.convert(mode)):
                assert 0 <= box.left < box.right <= size[0]
                assert 0 <= box.top < box.bottom <= size[1]


def test_equal_images_give_equal_boxes(detector: TextDetector, scene: Callable[..., Any]) -> None:
    image = scene(5, 320, 240)
    _written(image, "twice", 20)
    assert detector.boxes(image) == TextDetector().boxes(image.copy()) != []


def test_coverage_counts_a_pixel_once() -> None:
    boxes = [Box(0, 0, 10, 10, 1.0), Box(5, 0, 15, 10, 1.0)]
    assert coverage(boxes, (10, 20)) == 0.75
    assert coverage([], (10, 20)) == 0
    assert covered(boxes[:1], (12, 12), margin=0.1).sum() == 11 * 11


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.imaging.text_boxes, "_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"^text detection needs its network: pip install rapidocr-onnxruntime==1.4.4$"):
        TextDetector()
    with pytest.raises(UserError, match=r"^sources.x.burned_in_text: text detection needs"):
        require_detector("sources.x.burned_in_text")
