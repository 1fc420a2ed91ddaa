"""What folders of released weights say about themselves in JSON; read without torch or `transformers`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.common.errors import UserError

#: Keys of a config.json that are no part of a model's shape: where it came from, how it was stored and run, and what
#: our tokenizer decides.
_NOT_SHAPE = frozenset(
    {
        "_model_name_or_path",
        "_name_or_path",
        "_attn_implementation",
        "architectures",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "label2id",
        "pad_token_id",
        "prefix",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "vocab_size",
    }
)


def read_description(folder: str | Path, key: str) -> dict[str, Any]:
    """The config.json of a local `transformers` folder. Raises UserError, naming the config ``key``."""
    file = Path(folder, "config.json")
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{key}: {folder} is not a folder with a config.json; give a local one") from None
    except ValueError as error:
        raise UserError(f"{key}: {file}: not JSON ({error}); get it again") from None
    if not isinstance(described, dict):
        raise UserError(f"{key}: {file} is not the description of a model; get it again")
    return described


def language_description(folder: str | Path, key: str) -> dict[str, Any]:
    """The config.json of a folder's language model, which may be one part of what it holds. Raises UserError."""
    described = read_description(folder, key)
    inner = described.get("text_config")
    return inner if isinstance(inner, dict) and described.get("model_type") == "blip-2" else described


def decoder_shape(described: Mapping[str, Any]) -> dict[str, Any]:
    """What of a decoder's config.json decides its weights and its outputs, apart from the vocabulary."""
    return {name: value for name, value in described.items() if name not in _NOT_SHAPE}


def weight_files(folder: str | Path) -> list[str]:
    """The files of a local `transformers` folder that decide what a model that starts from it becomes."""
    folder = Path(folder)
    named = [folder / "config.json", folder / "model.safetensors.index.json"]
    return [str(file) for file in (*named, *sorted(folder.glob("*.safetensors"))) if file.is_file()]


def pixel_statistics(folder: str | Path) -> dict[str, Any]:
    """`image_mean` and `image_std` of a folder's image processor, as far as it states them.

    It is described in preprocessor_config.json or, since `transformers` 5, in processor_config.json, which counts.
    """
    described = _read(Path(folder, "processor_config.json")).get("image_processor")
    if not isinstance(described, dict):
        described = _read(Path(folder, "preprocessor_config.json"))
    if not described.get("do_normalize", True):
        return {}
    stated = {name: described.get(name) for name in ("image_mean", "image_std")}
    return {name: values for name, values in stated.items() if isinstance(values, list) and len(values) == 3}


def _read(file: Path) -> dict[str, Any]:
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return described if isinstance(described, dict) else {}
