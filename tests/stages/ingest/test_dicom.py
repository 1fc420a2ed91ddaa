"""From DICOM to 8 bits: windows, tables, inversion, padding, colour, frames; what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from stages.ingest.medical.dicom import Unusable, read_dicom, read_image, to_8_bit, window

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _load(name: str) -> Dataset:
    return pydicom.dcmread(FILES / name)


def _png(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("name", ["MR_small.dcm", "dicomdirtests/98892001/CT5N/2693"])
def test_windows_agree_with_pydicom_to_one_grey_level(name: str, function: str) -> None:
    dataset = _load(name)
    dataset.VOILUTFunction = function
    values = apply_modality_lut(dataset.pixel_array, dataset)
    theirs = apply_voi_lut(values, dataset).astype(float)
    # pydicom maps the window onto the range of the stored values; ours is 0..255.
    bits, slope, shift = int(dataset.BitsStored), dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)
    low, high = low * slope + shift, high * slope + shift
    assert np.abs((theirs - low) / (high - low) * 255 - to_8_bit(dataset)).max() <= 1


def test_the_linear_window_is_the_standard_s_formula() -> None:
    # PS3.3 C.11.2.1.2.1, the note's example: center 2048, width 4096 is the identity on 0..4095.
    values = np.array([-5.0, 0.0, 1.0, 2047.0, 4095.0, 5000.0])
    np.testing.assert_allclose(window(values, 2048, 4096, "LINEAR") * 4095, [0, 0, 1, 2047, 4095, 4095])
    assert window(np.array([99.0, 100.0]), 100, 1, "LINEAR").tolist() == [0, 1]
    with pytest.raises(ValueError, match="width"):
        window(values, 0, 0, "LINEAR")


def test_monochrome1_is_inverted() -> None:
    dataset = _load("MR_small.dcm")
    upright = to_8_bit(dataset)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_array_equal(to_8_bit(dataset), 255 - upright)


def test_a_lookup_table_is_applied_before_the_window() -> None:
    dataset = _load("MR_small.dcm")
    table = Dataset()
    table.LUTDescriptor = [3000, 0, 12]
    table.LUTData = [4095 - min(n, 4095) for n in range(3000)]
    table["LUTData"].VR = table["LUTDescriptor"].VR = "US"
    dataset.VOILUTSequence = [table]
    stored = dataset.pixel_array.astype(int)
    np.testing.assert_array_equal(to_8_bit(dataset), np.rint((4095 - stored) / 4095 * 255).astype(np.uint8))


def test_without_a_window_values_span_the_whole_range_and_padding_is_black() -> None:
    dataset = _load("CT_small.dcm")
    grey = to_8_bit(dataset)
    assert (grey.min(), grey.max()) == (0, 255)
    dataset.PixelPaddingValue = int(dataset.pixel_array.max())
    padded = to_8_bit(dataset)
    assert (padded[dataset.pixel_array == dataset.pixel_array.max()] == 0).all()
    assert padded.max() == 255


@pytest.mark.parametrize("name", ["SC_rgb_rle.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_2frame.dcm"])
def test_colour_of_any_depth_is_8_bit_and_of_several_frames_the_first(name: str) -> None:
    np.testing.assert_array_equal(to_8_bit(_load(name)), to_8_bit(_load("SC_rgb_rle.dcm")))


def test_a_palette_becomes_colour() -> None:
    assert to_8_bit(_load("examples_palette.dcm")).shape == (350, 800, 3)


def test_frames_are_counted_and_only_coded_facts_are_kept() -> None:
    dataset = _load("MR_small.dcm")
    dataset.BodyPartExamined = "Knee of John"
    picture = read_dicom(_bytes(dataset), frozenset())
    assert picture.facts == {
        "Rows": 64,
        "Columns": 64,
        "NumberOfFrames": 1,
        "Modality": "MR",
        "PhotometricInterpretation": "MONOCHROME2",
    }
    assert "CompressedSamples^MR1" in picture.names
    assert read_dicom((FILES / "SC_rgb_rle_2frame.dcm").read_bytes(), frozenset()).facts["NumberOfFrames"] == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rtdose_1frame.dcm", "not_a_picture"),
        ("liver_1frame.dcm", "not_a_picture"),
        ("reportsi.dcm", "not_a_picture"),
        ("rtplan.dcm", "not_a_picture"),
        ("MR_truncated.dcm", "undecodable"),
        ("README.txt", "not_dicom"),
        ("examples_rgb_color.dcm", "burned_in_annotation"),
    ],
)
def test_files_that_give_no_picture_are_refused_by_reason(name: str, reason: str) -> None:
    with pytest.raises(Unusable, match=f"^{reason}$"):
        read_dicom((FILES / name).read_bytes(), frozenset({"US"}))


def test_a_stated_burned_in_annotation_is_refused_in_any_modality() -> None:
    dataset = _load("MR_small.dcm")
    dataset.BurnedInAnnotation = "YES"
    with pytest.raises(Unusable, match="burned_in_annotation"):
        read_dicom(_bytes(dataset), frozenset())
    ultrasound = _load("examples_rgb_color.dcm")
    ultrasound.BurnedInAnnotation = "NO"
    assert _png(read_dicom(_bytes(ultrasound), frozenset({"US"})).png).shape == (240, 320, 3)


def test_every_file_of_pydicom_is_a_picture_or_a_named_reason() -> None:
    reasons = set()
    for path in sorted(FILES.glob("*.dcm")):
        try:
            assert _png(read_dicom(path.read_bytes(), frozenset()).png).dtype == np.uint8
        except Unusable as error:
            reasons.add(str(error))
    assert reasons <= {"not_a_picture", "no_pixels", "undecodable", "not_dicom"}


def test_an_image_file_keeps_its_pixels_and_loses_its_text(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    told = PngInfo()
    told.add_text("Patient", "Margaret Fontaine")
    deep: Any = np.array([[100, 1123], [612, 4000]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png", pnginfo=told)
    picture = read_image((tmp_path / "deep.png").read_bytes())
    assert b"Fontaine" not in picture.png
    assert _png(picture.png).tolist() == [[0, 67], [33, 255]]
    with pytest.raises(Unusable, match="undecodable"):
        read_image(b"no image")
