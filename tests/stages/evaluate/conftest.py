"""A real, tiny, untrained model artifact and a benchmark on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.base.artifact import Artifact

COLOURS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255)}


@pytest.fixture(scope="session")
def model_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """As `pretrain` and `finetune` write it: `model/`, `tokenizer/`, `train.json`."""
    import torch
    import yaml
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from models import registry
    from models.blip2.config import Blip2Config

    folder = tmp_path_factory.mktemp("model")
    (folder / "tokenizer").mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    control = ["<pad>", "<s>", "</s>"]
    tokenizer.train_from_iterator(
        [], trainers.BpeTrainer(vocab_size=259, special_tokens=control, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    conf = Path(__file__).parents[3] / "conf" / "model" / "blip2_tiny.yaml"
    config = Blip2Config.model_validate(yaml.safe_load(conf.read_text()))
    torch.manual_seed(0)
    registry.build(config).save_pretrained(str(folder / "model"))
    seen = {"image_size": config.vision.image_size, "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "train.json").write_text(json.dumps({"prompt": "", "preprocessing": seen}))
    (folder / "manifest.json").write_text(
        json.dumps({"fingerprint": "f" * 64, "config": {}, "counts": {}, "files": []})
    )
    return Artifact(str(folder))


@pytest.fixture
def benchmark_files(tmp_path: Path) -> Path:
    """Five images with two questions each, and captions of them in COCO's format with NoCaps' domains."""
    from PIL import Image

    (tmp_path / "images").mkdir()
    questions, annotations, images, captions = [], [], [], []
    for image_id in range(5):
        colour = list(COLOURS)[image_id % 3]
        Image.new("RGB", (64, 48), COLOURS[colour]).save(tmp_path / "images" / f"{image_id}.png")
        for number, question in enumerate(("what color is this?", "is it red?")):
            answer = colour if number == 0 else "yes" if colour == "red" else "no"
            key = image_id * 10 + number
            questions.append({"question_id": key, "image_id": image_id, "question": question})
            annotations.append(
                {
                    "question_id": key,
                    "image_id": image_id,
                    "question_type": question[:7].strip(),
                    "answer_type": "other" if number == 0 else "yes/no",
                    "multiple_choice_answer": answer,
                    "answers": [{"answer_id": i, "answer": answer} for i in range(10)],
                }
            )
        images.append({"id": image_id, "file_name": f"{image_id}.png", "domain": "in" if image_id < 2 else "out"})
        captions += [{"image_id": image_id, "caption": f"{a} {colour} square."} for a in ("A", "One")]
    for name, content in (
        ("questions", {"questions": questions}),
        ("annotations", {"annotations": annotations}),
        ("captions", {"images": images, "annotations": captions}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path
