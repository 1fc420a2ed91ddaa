"""What architectures share as `transformers` models: the base classes and their saved config."""

from __future__ import annotations

from typing import Any, Self

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from models.common.config import ModelConfig


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
