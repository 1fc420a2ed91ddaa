"""Location tokens: boxes return from text within half a bin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.common import location_tokens

sizes = st.integers(min_value=1, max_value=10_000)


@given(st.floats(min_value=0, max_value=1), sizes)
def test_a_coordinate_returns_within_half_a_bin(share: float, size: int) -> None:
    value = share * size
    back = location_tokens.dequantise(location_tokens.quantise(value, size), size)
    assert abs(back - value) <= size / location_tokens.BINS / 2 * (1 + 1e-9)


@given(st.integers(min_value=0, max_value=999), sizes)
def test_a_bin_returns_to_itself(bin: int, size: int) -> None:
    assert location_tokens.quantise(location_tokens.dequantise(bin, size), size) == bin


@pytest.mark.parametrize(
    ("value", "bin"), [(-5, 0), (0, 0), (0.0999, 0), (0.1, 1), (99.99, 999), (100, 999), (1e9, 999)]
)
def test_coordinates_are_floored_and_clamped(value: float, bin: int) -> None:
    assert location_tokens.quantise(value, 100) == bin


def test_boxes_are_found_in_a_text_in_the_order_they_were_written() -> None:
    first, second = (10.0, 20.0, 110.0, 220.0), (0.0, 0.0, 640.0, 480.0)
    written = [
        "".join(location_tokens.TOKENS[bin] for bin in location_tokens.quantise(box, (640, 480) * 2))
        for box in (first, second)
    ]
    text = f"a dog {written[0]} beside{written[1]}"
    for found, box in zip(location_tokens.boxes_from_text(text, 640, 480), (first, second), strict=True):
        assert found == pytest.approx(box, abs=0.321)


@pytest.mark.parametrize("text", ["", "a dog", "<loc_1><loc_2><loc_3>", "<loc_1><loc_2> x <loc_3><loc_4>"])
def test_incomplete_boxes_are_not_boxes(text: str) -> None:
    assert location_tokens.boxes_from_text(text, 100, 100) == []
