"""`pairmill export`: folders that others open, with a card that tells the scores and nothing private."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoImageProcessor, AutoTokenizer

from models import registry
from pipelines.compose import load
from pipelines.dag import build
from pipelines.main import main
from pipelines.state import Workspace
from pipelines.store import Store
from stages.tokenizer.load import load as load_tokenizer
from stages.train.data.augment import evaluation_transform

MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
PREFIX = [
    "model.bridge=prefix",
    "model.vision.family=eva",
    "train.random_frozen=true",
]
#: Runs a card's example with an import hook in front that forbids the packages named.
DRIVER = """
import sys
class Forbidden:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {forbidden!r}:
            raise ImportError(f"{{name}} is forbidden here")
sys.meta_path.insert(0, Forbidden())
exec(compile(open("example.py").read(), "example.py", "exec"))
import json
print("IDS", json.dumps(written[0].tolist()))
"""


class Made:
    """A workspace with a pretrained model, as `pretrain` leaves it, and one score of it."""

    def __init__(self, root: Path, overrides: list[str]) -> None:
        self.root = root
        self.overrides = ["model=blip2_tiny", f"workspace={root / 'workspace'}", "model.vocabulary=300", *overrides]
        config = load(self.overrides)
        workspace = Workspace(build(config), Store(config.workspace))
        node = workspace.dag["pretrain[blip2_tiny]"]
        self.folder = Path(workspace.artifact_dir(node).url)
        self.print = workspace.require(node)
        (self.folder / "tokenizer").mkdir(parents=True)
        names = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(names)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(names[:3])
        tokenizer.save(str(self.folder / "tokenizer" / "tokenizer.json"))
        self.model: Any = registry.build(config.model, seed=3).eval()
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(7)) * 0.05)
        self.model.save_pretrained(self.folder / "model")
        side = config.model.vision.image_size
        phase = {"objective": "representation", "steps": 6, "first_loss": 3.25, "last_loss": 1.125, "seconds": 1.5}
        record = {
            "phases": [phase],
            "steps": 6,
            "samples_seen": 48,
            "seconds": 1.5,
            "world_size": 2,
            "prompt": "describe:",
            "preprocessing": {"image_size": side, "mean": MEAN, "std": STD},
        }
        (self.folder / "train.json").write_text(json.dumps(record))
        self.seal(self.folder, "pretrain", self.print, {"shards": ["a" * 64]})
        self.size = side

    def seal(self, folder: Path, stage: str, mark: str, inputs: dict[str, list[str]]) -> None:
        names = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]
        manifest = {"stage": stage, "fingerprint": mark, "inputs": inputs, "counts": {}, "config": {}}
        (folder / "manifest.json").write_text(json.dumps({**manifest, "files": [{"name": name} for name in names]}))

    def score(self, of: str) -> None:
        mark = hashlib.sha256(of.encode()).hexdigest()
        folder = self.root / "workspace" / "artifacts" / "evaluate" / mark[:12]
        folder.mkdir(parents=True)
        protocol = {"n": 417, "beams": 3, "prompt": "describe:", "split_sha256": {"my_secret_list.json": "0" * 64}}
        scores = {"CIDEr": 1.2345, "CIDEr_per_domain": {"in": 1.0}}
        content = {"benchmark": "coco_captions", "kind": "captions", "scores": scores, "protocol": protocol}
        (folder / "scores.json").write_text(json.dumps(content))
        self.seal(folder, "evaluate", mark, {"model": [of]})

    def export(self, out: Path, *words: str) -> int:
        return main(["export", str(out), *self.overrides, *words])


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    return Made(tmp_path, getattr(request, "param", []))


def example(folder: Path, forbidden: tuple[str, ...]) -> list[int]:
    """The ids that the card's own example writes for `image.png` in the folder, in a process of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    (folder / "example.py").write_text(code)
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER.format(forbidden=forbidden)],
        capture_output=True, text=True, cwd=folder, env=environment, check=False, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("IDS")[2])  # type: ignore[no-any-return]


def expected_ids(made: Made, image: Image.Image) -> list[int]:
    pixels = torch.from_numpy(evaluation_transform(image, made.size, MEAN, STD))[None]
    ids = torch.tensor([load_tokenizer(made.folder / "tokenizer").encode("describe:")])
    arguments = (pixels, torch.tensor([0]), ids, torch.ones_like(ids))
    written = registry.generate(made.model, *arguments, num_beams=3, max_new_tokens=20)
    return written[0].tolist()  # type: ignore[no-any-return]


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))


def test_a_folder_is_complete_and_its_card_has_the_scores(made: Made, tmp_path: Path) -> None:
    made.score(made.print)
    out = tmp_path / "out"
    assert made.export(out) == 0
    text = (out / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    (result,) = metadata["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "CIDEr", "value": 1.2345}]
    assert "n = 417" in text
    assert "3.250 | 1.125" in text
    assert made.print in text
    for private in (str(tmp_path), "my_secret_list"):
        assert not [p.name for p in out.glob("*.[jm]*") if private in p.read_text(errors="replace")], private
    weights = out / "model.safetensors"
    assert weights.stat().st_ino == (made.folder / "model" / weights.name).stat().st_ino
    tokenizer: Any = AutoTokenizer.from_pretrained(out, local_files_only=True)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    said = "a </s> red  square é"
    assert tokenizer(said)["input_ids"] == load_tokenizer(made.folder / "tokenizer").encode(said)
    processor: Any = AutoImageProcessor.from_pretrained(out, local_files_only=True)
    for mode in ("RGB", "L", "RGBA", "CMYK"):
        image = picture().convert(mode)
        pixels = processor(image, return_tensors="np")["pixel_values"][0]
        # One of 256 levels where torchvision resizes instead of Pillow.
        np.testing.assert_allclose(pixels, evaluation_transform(image, made.size, MEAN, STD), atol=0.016)
    picture().save(out / "image.png")
    assert example(out, ("stages", "pipelines")) == expected_ids(made, picture())


@pytest.mark.parametrize("made", [PREFIX], indirect=True)
def test_a_model_of_a_stock_class_opens_without_pairmill(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert made.export(out, "--format", "transformers") == 0
    picture().save(out / "image.png")
    ids = example(out, ("models", "stages", "pipelines"))
    prompt = made.model.config.architecture["qformer"]["queries"] + 1 + len("describe:")
    assert ids[:prompt][-len("describe:") - 1] == 1  # bos stands behind the image
    assert ids[prompt:] == expected_ids(made, picture())


def test_what_is_there_is_not_overwritten_and_nothing_half_is_left(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    assert made.export(out) == 2
    assert "there is something already" in capsys.readouterr().err
    assert made.export(tmp_path / "other", "--format", "transformers") == 2
    error = capsys.readouterr().err
    assert "bridge=adapters" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "workspace"]
    assert made.export(tmp_path / "other", "--task", "demo_vqa") == 2
    assert "finetune[blip2_tiny/demo_vqa] is not made" in capsys.readouterr().err


def test_the_newest_model_is_taken_where_the_configured_one_is_not_made(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load(made.overrides)
    workspace = Workspace(build(config), Store(config.workspace))
    node = workspace.dag["pretrain[blip2_tiny]"]
    workspace.store.set_latest(node.id, workspace.record(node))
    assert made.export(tmp_path / "out", "train.lr=0.5", "--copy") == 0
    assert "train.lr" in capsys.readouterr().out
    weights = tmp_path / "out" / "model.safetensors"
    assert weights.stat().st_ino != (made.folder / "model" / weights.name).stat().st_ino
