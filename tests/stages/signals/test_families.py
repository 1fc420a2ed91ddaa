"""Each family of signals on its own."""

from __future__ import annotations

import io
import socket

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from stages.imagehash import UNDECODABLE, decode_rgb, hash_words, perceptual_signature, pixel_sha256
from stages.signals.image import Tone
from stages.signals.language import Language
from stages.signals.listed import Listed
from stages.signals.text import Text


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 70), st.just(3)))
    | st.tuples(st.integers(0, 255), st.integers(1, 64)).map(lambda t: np.full((t[1], 64, 3), t[0], dtype=np.uint8))
)
def test_phash_equals_imagehash(pixels: np.ndarray) -> None:
    rgb = Image.fromarray(pixels)
    hashes = perceptual_signature(rgb)
    assert hashes["phash"] == str(imagehash.phash(rgb))
    assert hashes["phash_rgb"] == "".join(str(imagehash.phash(channel)) for channel in rgb.split())


def test_phash_equals_imagehash_on_coloured_shapes() -> None:
    easy_vqa = pytest.importorskip("easy_vqa")
    paths = easy_vqa.get_test_image_paths()
    for number in range(0, 1000, 10):
        rgb = Image.open(paths[number]).convert("RGB")
        assert perceptual_signature(rgb)["phash"] == str(imagehash.phash(rgb))


def test_hex_hashes_become_words_in_order() -> None:
    words = hash_words(["00000000000000ff", "8000000000000000"], 64)
    assert words.tolist() == [[0xFF], [1 << 63]]
    assert hash_words([], 192).shape == (0, 3)
    with pytest.raises(ValueError, match="not 192 bits"):
        hash_words(["00" * 8], 192)


def test_equal_pixels_have_equal_digests_whatever_the_format(as_bytes) -> None:
    grey = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    plain = decode_rgb(as_bytes(grey))
    assert pixel_sha256(plain) == pixel_sha256(decode_rgb(as_bytes(np.stack([grey] * 3, axis=2), "BMP")))
    # 64x16 and 32x32 hold the same bytes in another shape.
    flat = np.zeros((64, 16, 3), dtype=np.uint8)
    assert pixel_sha256(Image.fromarray(flat)) != pixel_sha256(Image.fromarray(flat.reshape(32, 32, 3)))


def test_transparency_decodes_to_white(as_bytes) -> None:
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    assert decode_rgb(as_bytes(clear)).getpixel((3, 3)) == (255, 255, 255)


def test_sixteen_bit_greys_keep_their_upper_byte() -> None:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0x8123, dtype=np.uint16)).save(out, "PNG")
    assert decode_rgb(out.getvalue()).getpixel((0, 0)) == (0x81, 0x81, 0x81)


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x89PNG\r\n\x1a\n\0\0\0\0"])
def test_what_is_no_image_does_not_decode(data: bytes) -> None:
    with pytest.raises(UNDECODABLE):
        decode_rgb(data)


def test_a_cut_jpeg_does_not_decode(scene, as_bytes) -> None:
    data = as_bytes(scene(1, 200, 200), "JPEG")
    with pytest.raises(UNDECODABLE):
        decode_rgb(data[: len(data) // 2])


def test_tone_of_a_half_black_half_white_image() -> None:
    pixels = np.zeros((10, 20, 3), dtype=np.uint8)
    pixels[:, 10:] = 255
    row = Tone().measure(Image.fromarray(pixels))
    assert row == {"aspect_ratio": 2.0, "brightness": 127.5, "contrast": 127.5, "entropy": 1.0, "mean_rgb": [127.5] * 3}


def test_a_blank_image_has_no_entropy() -> None:
    assert Tone().measure(Image.new("RGB", (9, 3), (7, 7, 7)))["entropy"] == 0


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("", (0, 0, 0.0)),
        ("   ", (3, 0, 0.0)),
        ("a cat", (5, 2, 0.0)),
        ("cat Cat CAT cat", (15, 4, 0.75)),
        ("猫が好き", (4, 1, 0.0)),
    ],
)
def test_text_counts(caption: str, expected: tuple) -> None:
    row = Text().measure(caption, {})
    assert (row["characters"], row["words"], row["repetition"]) == expected


@pytest.fixture(scope="module")
def language() -> Language:
    return Language()


def test_language_is_found_offline(language, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert Language().measure("A dog runs over the wet sand of the beach", {})["language"] == "en"
    assert language.measure("Un chien court sur la plage de sable mouillé", {})["language"] == "fr"


def test_line_breaks_are_spaces_to_the_language_model(language) -> None:
    text = "A dog runs over\nthe wet sand"
    assert language.measure(text, {}) == language.measure(text.replace("\n", " "), {})


def test_a_caption_without_a_word_has_no_language(language) -> None:
    assert language.measure(" \n ", {}) == {"language": None, "language_score": 0.0}


def test_scores_of_the_list_are_kept_and_nonsense_is_not() -> None:
    meta = {"clip_b32_similarity_score": 0.4, "punsafe": "high", "pwatermark": float("nan")}
    assert Listed().measure("", meta) == {"similarity": 0.4, "unsafe": None, "watermark": None}
