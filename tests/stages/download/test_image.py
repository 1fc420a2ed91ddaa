"""Bytes are taken for an image only when all of it is there."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from stages.download.config import DownloadConfig
from stages.download.image import Inspector
from stages.download.outcome import Failure
from stages.imaging.formats import FORMATS
from stages.ingest.config import SourceConfig
from stages.shard.scan import IMAGE_EXTENSIONS

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


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_that_pillow_decodes_can_be_kept_and_is_not_by_default(
    make_picture: Callable[..., bytes], kind: str
) -> None:
    options = {"sizes": [(64, 48)]} if kind == "ico" else {}
    data = make_picture(3, (64, 48), FORMATS[kind].pillow, **options)
    config = DownloadConfig(name="s", source=SourceConfig(kind="test", paths=("list",)), keep_formats=(kind,))  # type: ignore[arg-type]
    keep = Inspector(config.keep_formats, 1, 1_000_000, 95, 2)
    found = keep(data)
    assert (found.data, found.format, found.width, found.height) == (data, kind, 64, 48)
    assert found.extension in IMAGE_EXTENSIONS  # shards are read back
    for percent in range(40, 98, 6):
        with pytest.raises(Failure) as failure:
            keep(data[: len(data) * percent // 100])
        assert failure.value.status in ("truncated", "corrupt"), percent
    if kind not in ("jpeg", "png", "webp"):
        with pytest.raises(Failure, match="unsupported_format") as failure:
            inspect(data)
        assert failure.value.detail == f"{kind} is not in keep_formats"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90)),
        ("heic", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(90)),
        ("jxl", b"\xff\x0a" + bytes(90)),
        ("jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(90)),
        ("svg", b'<?xml version="1.0"?>\n<!-- drawn --><svg xmlns="http://www.w3.org/2000/svg">' + bytes(90)),
        ("psd", b"8BPS\0\1" + bytes(90)),
    ],
)
def test_a_format_that_nothing_decodes_is_named(kind: str, data: bytes) -> None:
    with pytest.raises(Failure) as failure:
        inspect(data)
    assert (failure.value.status, failure.value.detail) == ("unsupported_format", f"{kind} cannot be decoded")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"<h1>404 Not Found</h1>\n\n\n", "not_an_image"),
        (b"{}", "not_an_image"),
        (b"", "too_small"),
        (b"\xff\xd8\xff\xe0", "too_small"),
        (b"GIF89a\1\0\1\0\0\0\0;", "too_small"),
        (b"<!doctype html><html><body><svg></svg></body></html>" * 2, "not_an_image"),
        (b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><svg/></html>', "not_an_image"),
    ],
)
def test_a_short_body_is_too_small_only_if_it_begins_an_image(data: bytes, status: str) -> None:
    with pytest.raises(Failure) as failure:
        Inspector(tuple(FORMATS), 64, 1_000_000, 95, 2)(data)
    assert failure.value.status == status
