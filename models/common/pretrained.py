"""What architectures share as `transformers` models: the base classes, their saved config, reading local weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from models.common.config import ModelConfig
from models.common.errors import UserError

C = TypeVar("C", bound=PreTrainedConfig)


class SavedConfig(PreTrainedConfig):
    """`config.json` of a saved model: the model's config, and the ids that frame a text.

    `initialise_from` is left out: once saved, a model no longer depends on it, and its paths are private.
    Subclasses set `model_type`, which `transformers` requires to be unique.
    """

    model_type = "pairmill"
    architecture: dict[str, Any] | None = None
    """The dumped `models.common.config.ModelConfig`."""
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | None = 2
    tie_word_embeddings: bool = True

    @classmethod
    def of(cls, config: ModelConfig, *, pad_id: int, bos_id: int, eos_id: int) -> Self:
        """The saved form of a model's config."""
        architecture = config.model_dump(mode="json", exclude={"initialise_from"})
        return cls(
            architecture=architecture,
            initializer_range=architecture["initialiser_range"],
            pad_token_id=pad_id,
            bos_token_id=bos_id,
            eos_token_id=eos_id,
        )


class VisionLanguageModel(PreTrainedModel):
    """Base of every architecture.

    A subclass sets `config_class` to its :class:`SavedConfig`, is constructed from one, and defines `named_parts`,
    ``forward(pixels, image_index, prompt_ids, prompt_mask, target_ids, target_mask)``, which returns the logits of the
    targets' tokens, and `generate` with the arguments of `models.registry.generate`. Tensors are laid out as in
    `models.common.batch.Batch`.
    """

    main_input_name = "pixels"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def named_parts(self) -> dict[str, nn.Module]:
        """The parts that are frozen or trained as a whole; every parameter is in exactly one."""
        raise NotImplementedError(f"{type(self).__name__} names no parts")


def read_config(cls: type[C], folder: str, key: str) -> C:
    """The config of a local `transformers` folder, read as ``cls``. Raises UserError when there is none."""
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{key}: {folder} is not a folder with a config.json; give a local one")
    return cls.from_pretrained(folder, local_files_only=True)


def fit_rows(weights: dict[str, Tensor], own: Mapping[str, Tensor], names: Iterable[str], take: bool) -> None:
    """Give the weights in ``names`` this model's number of ids, in place.

    Ids that both have start as in ``weights`` if ``take``; all others as in ``own``, the model's new ones.
    """
    for name in names:
        fitted = own[name].clone()
        if take:
            both = tuple(slice(min(sizes)) for sizes in zip(fitted.shape, weights[name].shape, strict=True))
            fitted[both] = weights[name][both]
        weights[name] = fitted


def load_part(
    cls: type[PreTrainedModel], folder: str, config: PreTrainedConfig, key: str, **options: Any
) -> dict[str, Tensor]:
    """Read a part's weights from a local `transformers` folder, never from a hub: a state dict in float32.

    Raises UserError, naming the config ``key``, when the folder is not there, or does not hold every weight of
    ``config``'s shape.
    """
    read_config(type(config), folder, key)
    try:
        loaded: Any = cls.from_pretrained(
            folder, config=config, local_files_only=True, output_loading_info=True, **options
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{key}: {folder} does not fit this model ({reason})") from error
    part, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{key}: {folder} lacks {len(missing)} of this model's weights, first {missing[0]}")
    return dict(part.float().state_dict())
