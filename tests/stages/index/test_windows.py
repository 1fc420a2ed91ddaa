"""Crops are found by the hashes of windows, which follow from a patch, and confirmed by laying one over the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from stages.imaging.decode import decode_rgb
from stages.imaging.perceptual_hash import patch_array, perceptual_signature
from stages.index.alignment import compare
from stages.index.windows import (
    ACROSS,
    DOWN,
    INVERSE,
    POSITIONS,
    WINDOWS,
    WindowBase,
    candidates,
    textured,
    turned_hashes,
    turned_patches,
    window_hashes,
)
from stages.select.config import Crops

TURNS = (None, *Image.Transpose)


def patches(images) -> np.ndarray:
    return patch_array([perceptual_signature(image)["patch"] for image in images])


def kept(image: Image.Image, left: float, right: float, top: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def found(queries: np.ndarray, base: np.ndarray, radius: int = 10) -> set[tuple[int, int]]:
    """(query, picture of the base) that are crops of one another by the default bounds."""
    pairs = candidates(window_hashes(queries), WindowBase.of(window_hashes(base)), radius)
    correlation, uncovered = compare(queries, base, pairs)
    crops = Crops()
    agree = (correlation >= crops.min_correlation) | (uncovered >= crops.min_uncovered)
    return set(zip(pairs.query[agree].tolist(), pairs.base[agree].tolist(), strict=True))


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    skimage = pytest.importorskip("skimage")
    files = sorted((Path(skimage.__file__).parent / "data").glob("*"))
    files = [file for file in files if file.name != "chessboard_RGB.png"]  # chessboard_GRAY.png once more
    images = [decode_rgb(file.read_bytes()) for file in files if file.suffix in (".png", ".jpg")]
    return [image for image, fits in zip(images, textured(patches(images)), strict=True) if fits]


def test_bits_are_the_lowest_frequencies_and_the_first_window_is_the_whole(scene) -> None:
    assert len(set(zip(DOWN.tolist(), ACROSS.tolist(), strict=True))) == 64
    assert (0, 0) not in zip(DOWN.tolist(), ACROSS.tolist(), strict=True)
    assert set(zip(DOWN.tolist(), ACROSS.tolist(), strict=True)) == set(
        zip(ACROSS.tolist(), DOWN.tolist(), strict=True)
    )
    assert np.hypot(DOWN, ACROSS).max() < 9.5
    (patch,) = patches([scene(1)])
    spectrum = scipy.fft.dctn(patch.astype(float), norm="ortho")[DOWN, ACROSS]
    digits = "".join(str(int(positive)) for positive in spectrum > 0)
    assert f"{int(window_hashes(patch[None])[0, 0]):064b}" == digits
    assert WINDOWS[0].tolist() == [0, 1, 0, 1]
    assert len({tuple(window) for window in WINDOWS.tolist()}) == len(WINDOWS) == 20


def test_a_hash_is_the_same_alone_and_in_a_batch(scene) -> None:
    many = patches([scene(seed) for seed in range(40)])
    together = window_hashes(many)
    assert all((window_hashes(many[[row]])[0] == together[row]).all() for row in range(40))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 30), position=st.sampled_from(POSITIONS))
def test_hashes_turn_as_pictures_do(seed: int, position: int) -> None:
    made = np.random.default_rng(seed).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    turned = turned_patches(made, np.full(3, position))
    assert (window_hashes(turned)[:, 0] == turned_hashes(window_hashes(made)[:, 0], position)).all()
    back = turned_patches(turned, np.full(3, INVERSE[position]))
    assert (back == made).all()


def test_the_eight_positions_are_all_turns(scene) -> None:
    patch = patches([scene(5)])
    image = Image.fromarray(patch[0])
    expected = {image.tobytes() if turn is None else image.transpose(turn).tobytes() for turn in TURNS}
    mine = {turned_patches(patch, np.array([position])).tobytes() for position in POSITIONS}
    assert mine == expected
    assert len(mine) == 8


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1 << 30), own=st.booleans(), radius=st.integers(0, 18))
def test_candidates_are_those_of_comparing_all(seed: int, own: bool, radius: int) -> None:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (9, 4, 4), dtype=np.uint8)
    made = coarse.repeat(4, axis=1).repeat(4, axis=2)
    made[5:] = np.clip(made[:4].astype(int) + random.integers(-30, 30, (4, 16, 16)), 0, 255)
    queries, held = window_hashes(made[:5]), window_hashes(made[5:])
    nearest = np.full((5, 4), 99)
    for position in POSITIONS:
        wholes = turned_hashes(held[:, 0], position)
        nearest = np.minimum(nearest, np.bitwise_count(queries[:, :, None] ^ wholes).min(axis=1))
        if own:
            windows = turned_hashes(held, position)
            nearest = np.minimum(nearest, np.bitwise_count(queries[:, :1, None] ^ windows).min(axis=2))
    pairs = candidates(queries, WindowBase.of(held, own_windows=own), radius)
    assert list(zip(pairs.query, pairs.base, strict=True)) == list(zip(*np.nonzero(nearest <= radius), strict=True))
    assert (pairs.distance == nearest[nearest <= radius]).all()


@pytest.mark.parametrize(
    "edit",
    [
        lambda image: kept(image, 0.025, 0.975, 0.025, 0.975),
        lambda image: kept(image, 0.1, 1, 0, 0.9),
        lambda image: kept(image, 0, 1, 0, 0.92),
        lambda image: ImageOps.expand(image, (image.width // 20, image.height // 20), fill="white"),
        lambda image: ImageOps.mirror(kept(image, 0.03, 0.98, 0.02, 0.97)),
        lambda image: image.transpose(Image.Transpose.ROTATE_90),
    ],
    ids=["centre", "corner", "one side", "border", "mirrored", "turned"],
)
def test_edited_photographs_are_found_on_either_side_and_no_others(photographs, edit) -> None:
    originals, edited = patches(photographs), patches([edit(image) for image in photographs])
    for pairs in (found(edited, originals), found(originals, edited)):
        # scikit-image's, some of which are cells and textures, fare worse than photographs: docs/duplicates.md.
        assert sum(query == base for query, base in pairs) >= 0.75 * len(photographs)
        # The left and the right image of a stereo camera are the only two alike.
        assert len({tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1]}) <= 1


def test_a_logo_is_no_difference_where_it_does_not_lie(photographs) -> None:
    edited = []
    for image in photographs:
        width, height = image.size
        logo = Image.new("RGB", (round(0.25 * width), round(0.25 * height)), (220, 30, 30))
        edited.append(image.copy())
        edited[-1].paste(logo, (round(0.7 * width), round(0.7 * height)))
    originals, covered = patches(photographs), patches(edited)
    pairs = candidates(window_hashes(covered), WindowBase.of(window_hashes(originals)), 16)
    correlation, uncovered = compare(covered, originals, pairs)
    same = pairs.query == pairs.base
    assert np.median(uncovered[same]) > 0.99
    assert (correlation[same] < Crops().min_correlation).sum() >= 6
    assert (uncovered[~same] < 0.99).all()


def test_plain_pictures_have_no_texture(scene) -> None:
    blank = np.full((1, 16, 16), 200, dtype=np.uint8)
    shape = blank.copy()
    shape[0, 5:9, 5:9] = 20
    assert not textured(np.concatenate([blank, shape])).any()
    assert textured(patches([scene(3)])).all()
    (none,) = [candidates(window_hashes(blank[:0]), WindowBase.of(window_hashes(blank)), 8)]
    assert len(none.query) == 0
    assert len(compare(blank[:0], blank, none)[0]) == 0
