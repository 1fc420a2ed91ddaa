"""What an architecture declares about itself: the one object it registers. Light: imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.common.config import ModelConfig, StrictConfig
from models.common.cost import MicroBatch
from models.common.cost_tape import Tape


@dataclass(frozen=True)
class Objective:
    """One way to train an architecture."""

    module: str
    """Import path (`package.module:Class`) of an nn.Module made as ``Class(model, settings)``, whose
    ``forward(batch)`` takes a `models.common.batch.Batch` and returns ``{"loss": scalar, its terms...}``."""
    settings: type[StrictConfig]
    """Schema of its settings."""
    parts: tuple[str, ...] | Callable[[Any], tuple[str, ...]]
    """The parts it uses, and trains unless a phase names fewer. The others get no gradient and are frozen. A function
    of the config where they depend on it."""
    needs_texts: bool = True
    """Whether it learns from texts. Only phases of one that does not see images without a text, and in their batches
    an image may have none."""


@dataclass(frozen=True)
class ModelSpec:
    """An architecture: a line of `BUILT_IN` in `models/registry.py`, or an entry point of the group `pairmill.models`.

    Whatever needs torch is given by import path and imported when it is first used: specs are loaded by commands that
    must answer at once.
    """

    config: type[ModelConfig]
    """Schema of `model` in the configuration."""
    model: str
    """Import path of the subclass of `models.common.pretrained.VisionLanguageModel`."""
    objectives: Mapping[str, Objective]
    """By name."""
    text_objective: str
    """The objective that learns to write a target text; what fine-tuning uses unless a task names another."""
    count_parameters: Callable[[Any], dict[str, int]]
    """From a config, the number of parameters of each part, without torch. Weights that are tied count once."""
    record_cost: Callable[[Tape, Any, str, Mapping[str, Any], MicroBatch], None] | None = None
    """``record_cost(tape, config, objective, settings, batch)`` records what one micro-batch of an objective computes
    (`models/common/cost_tape.py`), without torch; raises NoCost where it cannot. None: plans lack FLOPs and memory of
    activations."""
    layers: Callable[[Any], dict[str, int]] | None = None
    """From a config, the number of transformer layers of each part that has some: those that activation checkpointing
    can name. None: it is known only once the model is built."""
    split_heads: Callable[[Any], dict[str, int]] | None = None
    """From a config, the numbers of attention heads that tensor parallelism divides over ranks, by the key that sets
    each; raises UserError for a model that it cannot split. None: nothing is known."""
    longest_target: Callable[[Any, str, int], int] | None = None
    """``longest_target(config, objective, prompt)``: the longest target, in tokens, that the model has positions for
    beside a prompt of so many; 0 or less where there are none for the prompt alone. None: texts of any length."""
    initialise: str | None = None
    """Import path of ``stored_values(model, config, initial)``, which returns the values (`models.common.weights`) of
    the parts that ``config.initialise_from`` gives a folder for, by the names of the model's parameters, and raises
    UserError; None where nothing can be given."""
    language_model: Callable[[Any], str] | None = None
    """From a config, the family of the language model it can start from: `model_type` in the config.json of its
    weights, such as `opt`."""
    stock: str | None = None
    """Import path of ``stock_values(model, values, image_token)``, which returns a model of a class of `transformers`
    itself, on the meta device, and its values by name, and raises UserError for a model that has no such class; None
    where the architecture has none. The class takes `Blip2Processor`'s inputs."""
    conf: Path | None = None
    """For an architecture in a package of its own: a folder with `model/NAME.yaml` and `recipe/NAME.yaml`, which
    `model=NAME` chooses like those in `conf/`."""


def without_layers(part: str, parts: Container[str], layered: Iterable[str]) -> str:
    """The message for a key of `activation_checkpointing` that is none of the parts with layers."""
    problem = "has no transformer layers" if part in parts else "is no part of the model"
    return f"activation_checkpointing: {part} {problem}; give {', '.join(layered) or 'none'}"
