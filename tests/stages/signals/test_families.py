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
from PIL import Image, ImageFilter

from stages.imaging.decode import UndecodableImage, decode_rgb
from stages.imaging.perceptual_hash import hash_words, perceptual_signature, pixel_sha256
from stages.signals.caption import Language, TextStatistics
from stages.signals.family import Listing
from stages.signals.image import Sharpness, Size, Tone
from stages.signals.list_columns import ListColumns


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
    with pytest.raises(UndecodableImage):
        decode_rgb(data)


def test_a_cut_jpeg_does_not_decode(scene, as_bytes) -> None:
    data = as_bytes(scene(1, 200, 200), "JPEG")
    with pytest.raises(UndecodableImage):
        decode_rgb(data[: len(data) // 2])


def test_tone_of_a_half_black_half_white_image() -> None:
    pixels = np.zeros((10, 20, 3), dtype=np.uint8)
    pixels[:, 10:] = 255
    picture = Image.fromarray(pixels)
    assert Tone().prepare(picture) == {"brightness": 127.5, "contrast": 127.5, "entropy": 1.0, "mean_rgb": [127.5] * 3}
    assert Size().prepare(picture) == {"width": 20, "height": 10, "aspect_ratio": 2.0}


def test_a_blank_image_has_no_entropy() -> None:
    assert Tone().prepare(Image.new("RGB", (9, 3), (7, 7, 7)))["entropy"] == 0


def test_sharpness_is_the_variance_of_opencvs_laplacian(scene) -> None:
    cv2 = pytest.importorskip("cv2")
    picture = scene(4, 300, 200)
    edges = cv2.Laplacian(np.asarray(picture.convert("L")), cv2.CV_64F)[1:-1, 1:-1]
    assert Sharpness().prepare(picture)["sharpness"] == pytest.approx(edges.var(), rel=1e-4)


def test_blurring_lowers_sharpness_and_size_hardly_matters(shared) -> None:
    photo = Image.open(sorted((shared / "data/coco/val2017").glob("*.jpg"))[0]).convert("RGB")
    sharp = Sharpness().prepare(photo)["sharpness"]
    large = photo.resize((photo.width * 2, photo.height * 2), Image.Resampling.BICUBIC)
    assert Sharpness().prepare(photo.filter(ImageFilter.GaussianBlur(2)))["sharpness"] < sharp / 5
    assert Sharpness().prepare(large)["sharpness"] == pytest.approx(sharp, rel=0.5)


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (2000, 3)])
def test_images_too_thin_for_a_laplacian_have_no_sharpness(size) -> None:
    assert Sharpness().prepare(Image.new("RGB", size)) == {"sharpness": None}


_TURNS = (None, *Image.Transpose)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(_TURNS))
def test_phash_d4_of_a_turned_image_is_the_same(seed: int, turn) -> None:
    # 32x32: the reduction changes nothing, so the eight positions are compared exactly.
    grey = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
    rgb = Image.fromarray(grey).convert("RGB")
    turned = rgb if turn is None else rgb.transpose(turn)
    assert perceptual_signature(turned)["phash_d4"] == perceptual_signature(rgb)["phash_d4"]


def test_phash_d4_is_the_phash_of_one_of_the_eight_positions(scene) -> None:
    for seed in range(10):
        rgb = scene(seed, 32, 32)
        eight = {str(imagehash.phash(rgb if turn is None else rgb.transpose(turn))) for turn in _TURNS}
        assert perceptual_signature(rgb)["phash_d4"] in eight


def test_photographs_turned_and_recompressed_stay_near_by_phash_d4(shared, as_bytes) -> None:
    near = total = 0
    for path in sorted((shared / "data/coco/val2017").glob("*.jpg"))[:12]:
        photo = Image.open(path).convert("RGB")
        (home,) = hash_words([perceptual_signature(photo)["phash_d4"]], 64)[0]
        for turn in Image.Transpose:
            copy = photo.transpose(turn).resize((photo.height // 2, photo.width // 2))
            turned = decode_rgb(as_bytes(copy, "JPEG", quality=60))
            (away,) = hash_words([perceptual_signature(turned)["phash_d4"]], 64)[0]
            near += int(home ^ away).bit_count() <= 8
            total += 1
    assert near / total > 0.95


def of(family, caption: str, meta: dict | None = None) -> dict:
    (row,) = family.measure([Listing(caption, meta or {})])
    return row


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
    row = of(TextStatistics(), caption)
    assert (row["characters"], row["words"], row["repetition"]) == expected


@pytest.mark.parametrize(
    ("caption", "letters", "digits", "longest", "url"),
    [
        ("", 0, 0, 0, False),
        (" \n ", 0, 0, 0, False),
        ("IMG_0042.JPG", 6 / 12, 4 / 12, 12, False),
        ("नमस्ते दुनिया", 1, 0, 6, False),
        ("see HTTP://a.b/c", 10 / 15, 0, 12, True),
        ("at www.example.org now", 18 / 20, 0, 15, True),
        ("Awww. so cute", 10 / 11, 0, 5, False),
        ("½ ④ cups", 4 / 6, 2 / 6, 4, False),
    ],
)
def test_what_a_caption_is_made_of(caption: str, letters: float, digits: float, longest: int, url: bool) -> None:
    row = of(TextStatistics(), caption)
    assert row["letters"] == pytest.approx(letters)
    assert row["digits"] == pytest.approx(digits)
    assert (row["longest_word"], row["has_url"]) == (longest, url)


@pytest.fixture(scope="module")
def language() -> Language:
    family = Language()
    family.setup()
    return family


def test_language_is_found_offline(language, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    language.setup()
    assert of(language, "A dog runs over the wet sand of the beach")["language"] == "en"
    assert of(language, "Un chien court sur la plage de sable mouillé")["language"] == "fr"


def test_line_breaks_are_spaces_to_the_language_model(language) -> None:
    text = "A dog runs over\nthe wet sand"
    assert of(language, text) == of(language, text.replace("\n", " "))


def test_a_caption_without_a_word_has_no_language(language) -> None:
    assert of(language, " \n ") == {"language": None, "language_score": 0.0}


def test_what_the_list_says_is_kept_and_nonsense_is_not() -> None:
    row = of(
        ListColumns(),
        "x",
        {"clip_b32_similarity_score": 0.4, "punsafe": "high", "pwatermark": float("nan"), "WIDTH": 0},
    )
    assert row == {**dict.fromkeys(ListColumns.columns), "similarity": 0.4}
    huge = {"similarity": 10**400, "WIDTH": 10**40, "HEIGHT": -3, "NSFW": " ", "aesthetic": True}
    assert of(ListColumns(), "x", huge) == dict.fromkeys(ListColumns.columns)


def test_lists_of_laion_datacomp_and_coco_are_understood() -> None:
    laion = {
        "WIDTH": 640.0,
        "HEIGHT": 480.0,
        "similarity": 0.3,
        "punsafe": 0.1,
        "pwatermark": 0.2,
        "AESTHETIC_SCORE": 6.5,
    }
    row = of(ListColumns(), "x", {**laion, "NSFW": "unlikely"})
    assert (row["listed_width"], row["listed_height"], row["aesthetic"]) == (640, 480, 6.5)
    assert (row["unsafe"], row["watermark"], row["listed_nsfw"]) == (0.1, 0.2, "UNLIKELY")
    datacomp = {"original_width": 300, "original_height": 200, "clip_l14_similarity_score": 0.25}
    row = of(ListColumns(), "x", datacomp)
    assert (row["listed_width"], row["listed_height"], row["similarity_l14"]) == (300, 200, 0.25)
    row = of(ListColumns(), "x", {"image_id": 1, "width": 64, "height": 32})
    assert (row["listed_width"], row["listed_height"]) == (64, 32)


def test_an_image_only_sample_has_what_the_list_says_of_the_image_and_nothing_of_its_text() -> None:
    row = of(ListColumns(), "", {"similarity": 0.3, "clip_l14_similarity_score": 0.2, "punsafe": 0.1, "WIDTH": 640})
    assert row == {**dict.fromkeys(ListColumns.columns), "unsafe": pytest.approx(0.1), "listed_width": 640}
