"""Fixtures of the signals tests: a small source, a family from another package, a tiny CLIP, what is counted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.base.artifact import Artifact

_PLUGIN = """
from stages.base.contract import StageConfig
from stages.signals.family import BytesFamily, Cost


class Settings(StageConfig):
    offset: int = 0


class FirstByte(BytesFamily[Settings]):
    name = "first_byte"
    columns = {"first_byte": "int32"}
    cost = Cost(0)
    batch = 3
    Config = Settings
    calls = []

    def prepare(self, data):
        return data[0]

    def measure(self, prepared):
        self.calls.append(len(prepared))
        return [{"first_byte": byte + self.config.offset} for byte in prepared]
"""


@pytest.fixture
def source(fetched_source, scene, as_bytes) -> tuple[Artifact, Artifact]:
    """`pairs` and `raw` of five images, of which one is broken and one was not fetched."""
    images = [
        (
            "http://a/1.jpg",
            as_bytes(scene(1, 120, 80), "JPEG"),
            ["a red car on the road", "ein rotes Auto auf der Straße"],
        ),
        (
            "http://a/2.png",
            as_bytes(scene(2)),
            ["two\nlines of plain English text"],
            {"similarity": 0.31, "punsafe": 0.02, "WIDTH": 640.0, "HEIGHT": 480.0},
        ),
        ("http://a/3.png", as_bytes(scene(3)), ["the the The cat"]),
        ("http://a/4.png", b"not an image at all", ["broken"]),
        ("http://a/5.png", "http_404", ["gone"]),
    ]
    return fetched_source("laion", images)


@pytest.fixture
def decodes(monkeypatch) -> list[int]:
    """Grows by the number of bytes of every image that is decoded."""
    from stages.signals import measure

    seen: list[int] = []
    real = measure.decode_rgb

    def counted(data: bytes) -> Any:
        seen.append(len(data))
        return real(data)

    monkeypatch.setattr(measure, "decode_rgb", counted)
    return seen


@pytest.fixture
def other_package(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Installs a package that registers a family: `other_package(name="first_byte", text=..., entry=...)`."""

    def install(name: str = "first_byte", text: str = _PLUGIN, entry: str = "FirstByte") -> Path:
        module = f"pairmill_plugin_{len(list(tmp_path.glob('*.py')))}"
        (tmp_path / f"{module}.py").write_text(text)
        meta = tmp_path / f"{module}-1.0.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (meta / "entry_points.txt").write_text(f"[pairmill.signals]\n{name} = {module}:{entry}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, module, raising=False)
        return tmp_path / f"{module}.py"

    return install


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A CLIP model in Hugging Face format with random weights: 32x32 pixels, captions of at most 12 tokens."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    words = ["<pad>", "<unk>", "<s>", "a", "red", "car", "on", "the", "road", "cat", "</s>"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 10)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**small, "vocab_size": 11, "max_position_embeddings": 12, "eos_token_id": 10, "pad_token_id": 0},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**processor, "crop_size": {"height": 32, "width": 32}})
    )
    return folder
