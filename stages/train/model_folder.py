"""What makes a folder of weights complete: its tokenizer, its preprocessing of images and its model card.

All of it is read with `transformers`' Auto classes, offline. Light: imports no torch and no `transformers`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.base.contract import UserError
from stages.tokenizer.special import read_special, token_ids, tokenizer_json, unknown_token

#: The token that stands for each of an image's tokens in a prompt of `transformers`' BLIP-2 (`Blip2Processor`).
IMAGE_TOKEN = "<image>"


def complete(folder: Path, tokenizer: Path, preprocessing: Mapping[str, Any], card: str) -> None:
    """Write what a model's folder needs besides config.json and weights: tokenizer, image processor, README.md.

    ``tokenizer`` is a folder with our tokenizer's files, ``preprocessing`` that of train.json. Raises UserError.
    """
    write_tokenizer(tokenizer, folder)
    write_image_processor(folder, preprocessing)
    if not (folder / "generation_config.json").is_file():
        _write(folder / "generation_config.json", _numbers(tokenizer))
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_tokenizer(tokenizer: Path, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json, as `AutoTokenizer` reads them.

    Ids are ours with ``add_special_tokens=False``: a control token's name in a text is text, never the token.
    """
    shutil.copyfile(tokenizer / "tokenizer.json", folder / "tokenizer.json")
    settings = tokenizer_settings(tokenizer)
    _write(folder / "tokenizer_config.json", settings)
    _write(folder / "special_tokens_map.json", special_tokens_map(settings))


def tokenizer_settings(tokenizer: Path) -> dict[str, Any]:
    """The content of tokenizer_config.json for a folder of our tokenizer: what the folder says, made complete."""
    file = tokenizer / "tokenizer_config.json"
    own = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    content = tokenizer_json(tokenizer)
    names = {number: token for token, number in token_ids(content).items()}
    special = read_special(tokenizer)
    unknown = unknown_token(content)
    return {
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": [],
        **own,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": names[special.pad],
        "bos_token": names[special.bos],
        "eos_token": names[special.eos],
        **({"unk_token": unknown} if unknown else {}),
        "padding_side": "left",  # prompts, which `generate` takes
        "split_special_tokens": True,
    }


def special_tokens_map(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The content of special_tokens_map.json, which older readers take, from that of tokenizer_config.json."""
    roles = ("pad_token", "bos_token", "eos_token", "unk_token", "additional_special_tokens")
    return {role: settings[role] for role in roles if settings.get(role)}


def write_image_processor(folder: Path, preprocessing: Mapping[str, Any]) -> None:
    """Write the preprocessor_config.json that gives the pixels of `stages.train.data.augment.evaluation_transform`.

    The image must be upright (`ImageOps.exif_transpose`), and 16-bit greys cut to their upper 8 bits, as
    `stages/train/data/decode.py` does. Where torchvision is installed `transformers` resizes with that instead of
    Pillow, which rounds some pixels to a neighbouring one of 256 levels.
    """
    side = int(preprocessing["image_size"])
    settings = {
        "image_processor_type": "BlipImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 3,  # PIL.Image.Resampling.BICUBIC
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing["mean"]),
        "image_std": list(preprocessing["std"]),
    }
    _write(folder / "preprocessor_config.json", settings)


def image_token_id(tokenizer: Path) -> int:
    """The id of `<image>`: the tokenizer's, or the first behind its own, for which a model may have no embedding."""
    ids = token_ids(tokenizer_json(tokenizer))
    return ids.get(IMAGE_TOKEN, max(ids.values()) + 1)


def complete_stock(folder: Path, tokenizer: Path, preprocessing: Mapping[str, Any], card: str, queries: int) -> None:
    """As :func:`complete`, for a model in `transformers`' own BLIP-2 format with ``queries`` tokens per image.

    There the tokenizer has `<image>` and puts bos before a prompt, so that `Blip2Processor` gives the ids that the
    model was trained with.
    """
    import tokenizers
    from tokenizers.processors import TemplateProcessing

    settings = tokenizer_settings(tokenizer)
    image = image_token_id(tokenizer)
    loaded = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    loaded.add_special_tokens([tokenizers.AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
    if loaded.token_to_id(IMAGE_TOKEN) != image:
        raise UserError(
            "the tokenizer has gaps between its ids, so <image> gets none of its own: export with --format pairmill"
        )
    bos = settings["bos_token"]
    loaded.post_processor = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, loaded.token_to_id(bos))]
    )
    loaded.save(str(folder / "tokenizer.json"))
    others = [token for token in settings["additional_special_tokens"] if token != IMAGE_TOKEN]
    settings |= {
        "additional_special_tokens": [*others, IMAGE_TOKEN],
        "split_special_tokens": False,
        "processor_class": "Blip2Processor",
    }
    _write(folder / "tokenizer_config.json", settings)
    _write(folder / "special_tokens_map.json", special_tokens_map(settings))
    write_image_processor(folder, preprocessing)
    _write(folder / "processor_config.json", {"processor_class": "Blip2Processor", "num_query_tokens": queries})
    _write(folder / "generation_config.json", _numbers(tokenizer))
    (folder / "README.md").write_text(card, encoding="utf-8")


def _numbers(tokenizer: Path) -> dict[str, int]:
    return {f"{name.removesuffix('_id')}_token_id": number for name, number in read_special(tokenizer).models().items()}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
