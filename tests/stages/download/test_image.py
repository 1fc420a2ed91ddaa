"""Bytes are taken for an image only when all of it is there."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from stages.download.image import Inspector
from stages.download.outcome import Failure

inspect = Inspector(("jpeg", "png", "webp"), 1, 1_000_000, 95, 2)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_an_image_cut_anywhere_in_its_data_is_truncated(
    make_picture: Callable[..., bytes], form: str, options: dict[str, object]
) -> None:
    data = make_picture(3, (97, 61), form, **options)
    assert inspect(data).data is data
    for percent in range(40, 98, 3):
        with pytest.raises(Failure) as failure:
            inspect(data[: len(data) * percent // 100])
        assert failure.value.status == "truncated", percent


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied_to_pixels_and_size(
    make_picture: Callable[..., bytes], form: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = make_picture(1, (40, 24), form, exif=exif)
    with Image.open(io.BytesIO(data)) as listed:
        upright = ImageOps.exif_transpose(listed).convert("RGB")

    found = inspect(data)

    assert (found.width, found.height) == upright.size
    assert found.orientation == orientation
    assert (found.data is data) == (orientation == 1)
    with Image.open(io.BytesIO(found.data)) as stored:
        assert stored.getexif().get(0x0112, 1) == 1
        difference = [abs(a - b) for a, b in zip(stored.convert("RGB").tobytes(), upright.tobytes(), strict=True)]
    assert sum(difference) / len(difference) < 3


def test_the_limit_of_pixels_is_checked_on_the_header_alone(make_picture: Callable[..., bytes]) -> None:
    data = make_picture(1, (40, 25))
    small = Inspector(("jpeg",), 1, 999, 95, 1)
    with pytest.raises(Failure) as failure:
        small(data[: len(data) * 8 // 10])  # cut: would be truncated, were it decoded
    assert (failure.value.status, failure.value.detail) == (
        "too_many_pixels",
        "its image has 40 x 25 pixels, more than 999",
    )
    assert Inspector(("jpeg",), 1, 1000, 95, 1)(data).data is data


def test_equal_bytes_give_equal_reencoded_bytes(make_picture: Callable[..., bytes]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = make_picture(1, (40, 24), exif=exif)
    assert inspect(data).data == inspect(data).data


@settings(max_examples=300, deadline=None)
@given(start=st.sampled_from(["JPEG", "PNG", "WEBP", ""]), noise=st.binary(max_size=200), at=st.floats(0, 1))
def test_damaged_bytes_end_as_a_failure_or_an_image_and_never_as_another_error(
    start: str, noise: bytes, at: float
) -> None:
    data = b""
    if start:
        stored = io.BytesIO()
        Image.linear_gradient("L").resize((33, 21)).save(stored, format=start)
        data = stored.getvalue()
    place = int(at * len(data))
    damaged = data[:place] + noise + data[place + len(noise) :]
    try:
        outcome = "image" if inspect(damaged).width > 0 else "no size"
    except Failure as failure:
        outcome = failure.status
    limits = {"too_small", "too_many_pixels", "unsupported_format"}
    assert outcome in {"image", "truncated", "corrupt", "not_an_image"} | limits
