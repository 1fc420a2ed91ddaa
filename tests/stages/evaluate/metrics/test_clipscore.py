"""CLIPScore and RefCLIPScore against the paper's formulas, computed apart with transformers alone."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from PIL import Image

from stages.base.contract import UserError
from stages.evaluate.metrics.clipscore import ClipScores, check, clipscore

CAPTIONS = ["a red car on the road", "cat", "the cat on a car", "Red", "", "road road cat a the on"]
REFERENCES = [["a car", "the red road"], ["cat"], ["a cat", "car", "on on on"], ["blue"], ["the"], ["a", "a"]]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP model in Hugging Face format with random weights: 32x32 pixels, texts of at most 12 tokens."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    made = tmp_path_factory.mktemp("clip")
    known = ["A", "photo", "depicts", "a", "red", "car", "on", "the", "road", "cat", "Red"]
    words = ["<pad>", "<unk>", "<s>", *known, "</s>"]
    end = len(words) - 1
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", end)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(made)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": end + 1, "max_position_embeddings": 12, "eos_token_id": end, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={**small, **text},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    torch.manual_seed(1)
    model = CLIPModel(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.normal_(std=0.7)  # as made, every text has nearly the same embedding
    model.save_pretrained(made)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (made / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "CLIPImageProcessor", **size}))
    return made


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, scene) -> list[Path]:
    where = tmp_path_factory.mktemp("images")
    for seed in range(len(CAPTIONS)):
        scene(seed, 60 + 9 * seed, 70).save(where / f"{seed}.png")
    return [where / f"{seed}.png" for seed in range(len(CAPTIONS))]


@pytest.fixture(scope="module")
def scores(folder: Path, images: list[Path]) -> ClipScores:
    return clipscore(images, CAPTIONS, REFERENCES, folder)


def test_scores_are_those_of_the_papers_formulas(folder, images, scores) -> None:
    import torch
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    raw = []
    for file, caption, refs, clip, ref_clip in zip(
        images, CAPTIONS, REFERENCES, scores.clip, scores.ref_clip, strict=True
    ):
        pixels = processor(Image.open(file), return_tensors="pt")["pixel_values"]
        texts = []
        for text in [caption, *refs]:
            ids = tokenizer(f"A photo depicts {text}", truncation=True, max_length=12, return_tensors="pt")
            with torch.no_grad():
                out = model(**ids, pixel_values=pixels)
            texts.append(out.text_embeds[0])
        cosine = torch.nn.functional.cosine_similarity(out.image_embeds[0], texts[0], dim=0).item()
        closest = max(torch.nn.functional.cosine_similarity(texts[0], ref, dim=0).item() for ref in texts[1:])
        raw.append((cosine, closest))
        assert clip == pytest.approx(2.5 * max(cosine, 0), abs=1e-5)
        closest = max(closest, 0)
        expected = 2 / (1 / (2.5 * cosine) + 1 / closest) if cosine > 0 and closest > 0 else 0
        assert ref_clip == pytest.approx(expected, abs=1e-5)
    for cosines in zip(*raw, strict=True):
        assert min(cosines) < 0 < max(cosines), "the model must give both signs for this test to mean anything"


def test_without_references_there_is_no_refclipscore(folder, images, scores) -> None:
    alone = clipscore(images, CAPTIONS, None, folder)
    assert alone.ref_clip is None
    assert alone.clip == pytest.approx(scores.clip, abs=1e-6)


def test_the_same_call_gives_the_same_digits(folder, images, scores) -> None:
    assert clipscore(images, CAPTIONS, REFERENCES, folder) == scores


def test_a_score_does_not_depend_on_what_is_scored_beside_it(folder, images, scores) -> None:
    many = clipscore(images * 7, CAPTIONS * 7, REFERENCES * 7, folder)  # 42 images: more than one batch
    assert many.clip == pytest.approx(scores.clip * 7, abs=1e-5)
    assert many.ref_clip == pytest.approx(scores.ref_clip * 7, abs=1e-5)
    one = clipscore(images[:1], CAPTIONS[:1], REFERENCES[:1], folder)
    assert one.clip[0] == pytest.approx(scores.clip[0], abs=1e-5)


def test_a_caption_among_its_references_is_as_like_as_can_be(folder, images) -> None:
    found = clipscore(
        images, CAPTIONS, [[*refs, caption] for refs, caption in zip(REFERENCES, CAPTIONS, strict=True)], folder
    )
    for clip, ref_clip in zip(found.clip, found.ref_clip, strict=True):
        assert ref_clip == pytest.approx(2 * clip / (clip + 1), abs=1e-6)
        assert 0 <= clip <= 2.5
        assert 0 <= ref_clip <= 10 / 7


def test_the_order_of_references_does_not_count(folder, images, scores) -> None:
    found = clipscore(images, CAPTIONS, [refs[::-1] for refs in REFERENCES], folder)
    assert found.ref_clip == pytest.approx(scores.ref_clip, abs=1e-6)


def test_words_beyond_the_models_length_do_not_count(folder, images) -> None:
    long = "a cat on the red road a car "  # with the prompt and both ends, 12 tokens take 7 of these words
    one, other = (clipscore(images[:1], [long + end], None, folder) for end in ("cat", "road road car"))
    assert one == other


def test_an_image_on_its_side_is_set_upright(folder, scene, tmp_path) -> None:
    upright = scene(4, 64, 40)
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    found = clipscore([tmp_path / "upright.png", tmp_path / "turned.png"], ["cat", "cat"], None, folder)
    assert found.clip[0] == pytest.approx(found.clip[1], abs=1e-6)


def test_nothing_to_score_is_no_score(folder) -> None:
    assert clipscore([], [], None, folder) == ClipScores([], None)
    assert clipscore([], [], [], folder) == ClipScores([], [])


def test_an_image_that_is_missing_or_broken_is_named(folder, images, tmp_path) -> None:
    with pytest.raises(UserError, match=r"image number 1: no file .*gone\.jpg; check"):
        clipscore([images[0], tmp_path / "gone.jpg"], ["a", "b"], None, folder)
    (tmp_path / "broken.jpg").write_bytes(images[0].read_bytes()[:99])
    with pytest.raises(UserError, match=r"image number 0: .*broken\.jpg does not decode \(.*\); get it again"):
        clipscore([tmp_path / "broken.jpg"], ["a"], None, folder)


def test_arguments_that_do_not_match_are_refused(folder, images) -> None:
    with pytest.raises(ValueError, match="as many"):
        clipscore(images[:2], ["a"], None, folder)
    with pytest.raises(ValueError, match="as many"):
        clipscore(images[:1], ["a"], [["a"], ["b"]], folder)
    with pytest.raises(ValueError, match="image number 1 has no reference"):
        clipscore(images[:2], ["a", "b"], [["a"], []], folder)


def test_a_folder_without_a_whole_clip_model_is_a_users_mistake(folder, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(UserError, match=r"^CLIP model .*nowhere: no such folder"):
        check(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no config\.json, so no model"):
        check(tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    check(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"no CLIP model .*: its weights lack visual_projection\.weight"):
        clipscore([], [], None, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"config\.json is of a bert model"):
        clipscore([], [], None, tmp_path)


def test_the_precision_set_elsewhere_is_left_as_it_was(folder, images) -> None:
    import torch

    torch.set_float32_matmul_precision("high")
    try:
        clipscore(images[:1], ["a"], None, folder)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
