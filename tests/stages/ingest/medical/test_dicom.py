"""DICOM and image files as 8-bit pixels: windows, tables, inversion, padding, colour, frames, rejects."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder
from pydicom.uid import JPEGLSLossless

from stages.ingest.medical.burned_in import without_text
from stages.ingest.medical.dicom import DecodedImage, DicomFile, Unusable, encode_png, read_image
from stages.ingest.medical.grayscale import to_8_bit, window

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
LIMIT = 100_000_000


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _load(name: str) -> Dataset:
    return pydicom.dcmread(FILES / name)


def _reason(content: bytes, limit: int = 100_000_000) -> str:
    """The reason why a file is rejected; "" for an image."""
    try:
        dicom = DicomFile(content, limit)
        for frame in dicom.frame_numbers("middle"):
            image = dicom.image(frame)
            assert image.pixels.dtype == np.uint8
            assert image.pixels.ndim in (2, 3)
        assert all(isinstance(name, str) for name in (*dicom.names, *dicom.numbers))
    except Unusable as error:
        return str(error)
    return ""


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("name", ["MR_small.dcm", "dicomdirtests/98892001/CT5N/2693"])
def test_windows_agree_with_pydicom_to_one_grey_level(name: str, function: str) -> None:
    dataset = _load(name)
    dataset.VOILUTFunction = function
    values = apply_modality_lut(dataset.pixel_array, dataset)
    reference = apply_voi_lut(values, dataset).astype(float)
    # pydicom maps the window onto the range of the stored values; ours is 0..255.
    bits, slope, shift = int(dataset.BitsStored), dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)
    low, high = low * slope + shift, high * slope + shift
    assert np.abs((reference - low) / (high - low) * 255 - to_8_bit(dataset)).max() <= 1


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
    dicom = DicomFile(_bytes(dataset), LIMIT)
    assert dicom.image().facts == {
        "Rows": 64,
        "Columns": 64,
        "NumberOfFrames": 1,
        "Modality": "MR",
        "PhotometricInterpretation": "MONOCHROME2",
    }
    assert "CompressedSamples^MR1" in dicom.names


def test_which_frames_become_images_is_configured() -> None:
    several = DicomFile((FILES / "examples_ybr_color.dcm").read_bytes(), LIMIT)
    count = several.image().facts["NumberOfFrames"]
    assert count > 2
    assert several.frame_numbers("first") == [0]
    assert several.frame_numbers("middle") == [count // 2]
    assert several.frame_numbers("all") == list(range(count))
    assert several.image(2).facts["Frame"] == 2
    with pytest.raises(Unusable, match=r"^multi_frame$"):
        several.frame_numbers("reject")
    single = DicomFile((FILES / "MR_small.dcm").read_bytes(), LIMIT)
    assert single.frame_numbers("reject") == single.frame_numbers("all") == single.frame_numbers("middle") == [0]
    assert "Frame" not in single.image().facts


def test_a_frame_of_an_enhanced_file_is_displayed_by_its_own_window() -> None:
    dataset = _load("MR_small.dcm")
    plain = to_8_bit(dataset)
    shared, own, transform, voi = Dataset(), Dataset(), Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = dataset.WindowCenter, dataset.WindowWidth
    transform.RescaleSlope, transform.RescaleIntercept = 2, 100
    shared.FrameVOILUTSequence = [voi]
    own.PixelValueTransformationSequence = [transform]
    del dataset.WindowCenter, dataset.WindowWidth
    without = to_8_bit(dataset)
    dataset.SharedFunctionalGroupsSequence = [shared]
    np.testing.assert_array_equal(to_8_bit(dataset), plain)
    dataset.PerFrameFunctionalGroupsSequence = [own]
    values = dataset.pixel_array.astype(float) * 2 + 100
    expected = np.rint(window(values, float(voi.WindowCenter), float(voi.WindowWidth), "LINEAR") * 255)
    np.testing.assert_array_equal(to_8_bit(dataset), expected)
    assert (without != plain).any()


def test_an_empty_window_counts_as_absent() -> None:
    dataset = _load("CT_small.dcm")
    plain = to_8_bit(dataset)
    dataset.WindowCenter = dataset.WindowWidth = ""
    np.testing.assert_array_equal(to_8_bit(dataset), plain)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rtdose_1frame.dcm", "not_a_picture"),
        ("liver_1frame.dcm", "not_a_picture"),
        ("reportsi.dcm", "not_a_picture"),
        ("rtplan.dcm", "not_a_picture"),
        ("MR_truncated.dcm", "undecodable"),
        ("README.txt", "not_dicom"),
    ],
)
def test_files_without_an_image_are_rejected_with_a_reason(name: str, reason: str) -> None:
    assert _reason((FILES / name).read_bytes()) == reason


def test_a_frame_too_large_is_rejected_before_it_is_decoded() -> None:
    dataset = _load("SC_rgb_rle.dcm")
    dataset.Rows = dataset.Columns = 65_535
    assert _reason(_bytes(dataset)) == "too_many_pixels"
    huge = io.BytesIO()
    Image.new("L", (3000, 3000)).save(huge, "PNG")
    with pytest.raises(Unusable, match="too_many_pixels"):
        read_image(huge.getvalue(), 1_000_000)


def test_every_file_of_pydicom_is_an_image_or_a_named_reason() -> None:
    reasons = {path: _reason(path.read_bytes()) for path in sorted(FILES.parent.rglob("*")) if path.is_file()}
    assert len(reasons) > 150
    named = {"", "not_a_picture", "no_pixels", "undecodable", "not_dicom", "unsupported_compression"}
    assert set(reasons.values()) <= named
    assert sum(reason == "" for reason in reasons.values()) > 60


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_file_is_an_image_or_a_named_reason(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["CT_small.dcm", "MR_small_RLE.dcm", "SC_rgb_rle_2frame.dcm", "JPEG2000.dcm"]))
    content = bytearray((FILES / name).read_bytes())
    # The header takes the first two thousand bytes of these files: damage it more often than pixels.
    position = st.one_of(st.integers(128, 2000), st.integers(128, len(content) - 1))
    for index in data.draw(st.lists(position, min_size=1, max_size=12)):
        content[index] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    assert _reason(bytes(content[:cut]), 1_000_000) in {
        "",
        "not_a_picture",
        "no_pixels",
        "undecodable",
        "not_dicom",
        "unsupported_compression",
        "too_many_pixels",
    }


@pytest.mark.parametrize("boxes", [b"\x00" * 8, b"\x00\x00\x00\x08ftyp" + b"\x00"])
def test_a_jpeg_2000_box_without_length_is_rejected(boxes: bytes) -> None:
    """A walk from box to box by their length would never end."""
    dataset = _load("JPEG2000.dcm")
    dataset.PixelData = encapsulate([b"\x00\x00\x00\x0cjP  \r\n\x87\n" + boxes])
    dataset["PixelData"].is_undefined_length = True
    assert _reason(_bytes(dataset)) == "undecodable"


@pytest.mark.parametrize(
    "name", ["MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jls_lossy_sample.dcm", "JPEGLSNearLossless_16.dcm"]
)
def test_jpeg_ls_needs_a_decoder_and_is_read_with_one(name: str) -> None:
    dataset = _load(name)
    if not get_decoder(dataset.file_meta.TransferSyntaxUID).is_available:
        assert _reason((FILES / name).read_bytes()) == "unsupported_compression"
        pytest.skip("no decoder for JPEG-LS: pip install 'pairmill[jpegls]'")
    image = DicomFile((FILES / name).read_bytes(), LIMIT).image()
    assert image.pixels.shape[:2] == (dataset.Rows, dataset.Columns)
    if name.startswith("MR"):
        original = DicomFile((FILES / "MR_small.dcm").read_bytes(), LIMIT).image()
        assert np.array_equal(image.pixels, original.pixels)


def test_a_jpeg_ls_file_has_the_pixels_it_was_made_of() -> None:
    pytest.importorskip("jpeg_ls", reason="pairmill[jpegls] is not installed")
    dataset = _load("CT_small.dcm")
    expected = DicomFile(_bytes(dataset), LIMIT).image().pixels
    dataset.compress(JPEGLSLossless, encoding_plugin="pyjpegls")
    assert np.array_equal(DicomFile(_bytes(dataset), LIMIT).image().pixels, expected)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    assert _reason(_bytes(dataset)) == "undecodable"


def test_without_text_detection_the_header_decides() -> None:
    def kept(modality: str, burned_in: str) -> bool:
        image = DecodedImage(np.zeros((8, 8), np.uint8), {}, modality, burned_in)
        try:
            without_text(image, "keep", None, frozenset({"US"}), 0.2, 0.3)
        except Unusable:
            return False
        return True

    assert [kept("US", value) for value in ("", "YES", "NO")] == [False, False, True]
    assert [kept("MR", value) for value in ("", "YES", "NO")] == [True, False, True]


def test_an_image_file_keeps_its_pixels_and_loses_its_text(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Patient", "Margaret Fontaine")
    deep: Any = np.array([[100, 1123], [612, 4000]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png", pnginfo=text)
    image = read_image((tmp_path / "deep.png").read_bytes(), LIMIT)
    assert b"Fontaine" not in encode_png(image.pixels)
    assert image.pixels.tolist() == [[0, 67], [33, 255]]
    with pytest.raises(Unusable, match="undecodable"):
        read_image(b"no image", LIMIT)
