"""The way into the models for everything outside this folder: build, load, train, generate, count."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.blip2 import config as blip2_config
from models.blip2 import tasks as blip2_tasks
from models.blip2.config import Blip2Config
from models.blip2.initialise import start_from as blip2_start
from models.blip2.model import Blip2Adapter, Blip2ModelConfig
from models.common.config import StrictConfig
from models.common.errors import UserError
from models.florence2 import config as florence2_config
from models.florence2 import tasks as florence2_tasks
from models.florence2.config import Florence2Config
from models.florence2.initialise import start_from as florence2_start
from models.florence2.model import Florence2, Florence2ModelConfig
from models.pretrained import VisionLanguageModel

ModelConfig = Blip2Config | Florence2Config

#: Objective -> (its task, its settings' schema).
_BLIP2: dict[str, tuple[Any, type[StrictConfig]]] = {
    "representation": (blip2_tasks.Representation, blip2_config.RepresentationSettings),
    "language_modeling": (blip2_tasks.LanguageModeling, blip2_config.LanguageModelingSettings),
}
_FLORENCE2: dict[str, tuple[Any, type[StrictConfig]]] = {
    "masked_autoencoding": (florence2_tasks.MaskedAutoencoding, florence2_config.MaskedAutoencodingSettings),
    "sequence_to_sequence": (florence2_tasks.SequenceToSequence, florence2_config.SequenceToSequenceSettings),
}
_OBJECTIVES = {"blip2": _BLIP2, "florence2": _FLORENCE2}
_USED: dict[str, Mapping[str, tuple[str, ...]]] = {"blip2": blip2_tasks.USED, "florence2": florence2_tasks.USED}
_BY_TYPE: dict[str, type[VisionLanguageModel]] = {
    Blip2ModelConfig.model_type: Blip2Adapter,
    Florence2ModelConfig.model_type: Florence2,
}


def _empty(config: ModelConfig, *, pad_id: int, bos_id: int, eos_id: int) -> VisionLanguageModel:
    ids = {"pad_id": pad_id, "bos_id": bos_id, "eos_id": eos_id}
    if isinstance(config, Blip2Config):
        return Blip2Adapter(Blip2ModelConfig.of(config, **ids))
    return Florence2(Florence2ModelConfig.of(config, **ids))


def build(config: ModelConfig, *, pad_id: int = 0, bos_id: int = 1, eos_id: int = 2) -> VisionLanguageModel:
    """A new model, random under torch's seed except for the parts ``initialise_from`` names. Raises UserError."""
    model = _empty(config, pad_id=pad_id, bos_id=bos_id, eos_id=eos_id)
    if isinstance(model, Blip2Adapter) and isinstance(config, Blip2Config):
        blip2_start(model, config)
    elif isinstance(model, Florence2) and isinstance(config, Florence2Config):
        florence2_start(model, config)
    return model


def load(folder: str | Path) -> VisionLanguageModel:
    """A saved model from a local folder, offline, in evaluation mode. Raises UserError when it holds none."""
    described = Path(folder, "config.json")
    if not described.is_file():
        raise UserError(f"{folder} holds no config.json: not a saved model")
    kind = json.loads(described.read_text(encoding="utf-8")).get("model_type")
    if kind not in _BY_TYPE:
        raise UserError(f"{described}: model_type {kind!r} is none of {', '.join(sorted(_BY_TYPE))}")
    return _BY_TYPE[kind].from_pretrained(str(folder), local_files_only=True).eval()


def architecture(model: VisionLanguageModel) -> str:
    """The architecture's name, a key of the objectives."""
    return str(model.config.architecture["architecture"])


def objectives(config: ModelConfig) -> tuple[str, ...]:
    """The objectives a model of this config can be trained with."""
    return tuple(_OBJECTIVES[config.architecture])


def used_parts(config: ModelConfig, objective: str) -> tuple[str, ...]:
    """The parts an objective trains; freeze all others. Raises UserError for an objective of another model."""
    _objective(config.architecture, objective)
    return _USED[config.architecture][objective]


def _objective(name: str, objective: str) -> tuple[Any, type[StrictConfig]]:
    known = _OBJECTIVES[name]
    if objective not in known:
        raise UserError(f"objective {objective!r} is not one of {name}'s: {', '.join(known)}")
    return known[objective]


def training_task(model: VisionLanguageModel, objective: str, settings: Mapping[str, Any] | None = None) -> nn.Module:
    """A module whose ``forward(batch)`` returns ``{"loss": scalar, its parts...}``; ``task.model`` is the model.

    ``settings`` are checked against the objective's schema in the model's `config.py`.
    """
    task, schema = _objective(architecture(model), objective)
    made: nn.Module = task(model, schema.model_validate(dict(settings or {})))
    return made


def parts(model: VisionLanguageModel) -> dict[str, nn.Module]:
    """The model's parts by name; every parameter belongs to exactly one."""
    return model.named_parts()


def set_trainable(model: VisionLanguageModel, names: Sequence[str] | None) -> None:
    """Let the named parts learn and freeze the rest; None thaws everything. Raises UserError for an unknown part."""
    known = parts(model)
    wanted = set(known) if names is None else set(names)
    if unknown := sorted(wanted - set(known)):
        raise UserError(f"no such part: {', '.join(unknown)}; the model's are {', '.join(known)}")
    for name, part in known.items():
        part.requires_grad_(name in wanted)


def parameters(config: ModelConfig) -> dict[str, Any]:
    """``{"total": int, "parts": {name: int}}``, counted on the meta device: nothing is allocated.

    Tied weights count once.
    """
    with torch.device("meta"):
        model = _empty(config, pad_id=0, bos_id=1, eos_id=2)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts(model).items()}
    return {"total": sum(counts.values()), "parts": counts}


def generate(
    model: VisionLanguageModel,
    pixels: Tensor,
    image_index: Tensor,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    *,
    num_beams: int,
    max_new_tokens: int,
    min_new_tokens: int = 0,
    length_penalty: float = 1.0,
) -> Tensor:
    """Beam search: int64 [n, length], the ids after each prompt, right-padded with the pad id after eos.

    ``pixels`` [m, 3, height, width]; ``image_index`` [n]; ``prompt_ids``, ``prompt_mask`` [n, length >= 0], padded on
    the left. Each image is encoded once. The model is put into evaluation mode for the call.
    """
    was_training = model.training
    model.eval()
    search: Any = model.generate
    written: Tensor = search(
        pixels,
        image_index,
        prompt_ids,
        prompt_mask,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        length_penalty=length_penalty,
    )
    model.train(was_training)
    return written
