"""Converts a GGUF file into a `transformers` folder: safetensors, config and tokenizer."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.common.errors import UserError


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the decoder in a GGUF file, dequantised to bfloat16, and its tokenizer into a new folder.

    The model is held in memory: GGUF files are small models' or quantised ones. Raises UserError for a file that
    `transformers` does not read, or where a package that it needs for that is missing.
    """
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise UserError(f"reading GGUF files needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    if not file.is_file():
        raise UserError(f"no file {file}; give a GGUF file")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; name a new folder")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.bfloat16, local_files_only=True
        )
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{file}: transformers cannot read it ({reason}); give a GGUF of a decoder it supports"
        ) from None
    described = {name: value for name, value in model.config.to_dict().items() if name not in _OF_THE_FILE}
    config = type(model.config).from_dict(described)
    with torch.device("meta"):
        plain: Any = type(model)(config)
        plain.to(torch.bfloat16)
    plain.save_pretrained(folder, state_dict=model.state_dict())
    tokenizer.save_pretrained(folder)


#: What a config says about the file that it was read from.
_OF_THE_FILE = ("dtype", "quantization_config", "_name_or_path", "_model_name_or_path")
