"""The table of architectures, and the functions by which everything outside this folder uses a model.

An architecture is a line of the table `BUILT_IN`, or an entry point of the group `pairmill.models` in any other
installed package; its value is a :class:`models.common.spec.ModelSpec`. Importing this module imports no torch; only
functions that need a model do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, LiteralString

from pydantic import BeforeValidator, SerializeAsAny, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from models.common.config import ModelConfig, StrictConfig
from models.common.cost import Flops, MicroBatch, NoCost
from models.common.cost_tape import Tape
from models.common.errors import UserError
from models.common.spec import ModelSpec, Objective

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.common.pretrained import VisionLanguageModel
    from models.common.weights import Values

GROUP = "pairmill.models"

_LOG = logging.getLogger(__name__)

#: The architectures of this repository. No entry points, because a Ray worker may have the code without its metadata.
BUILT_IN = (
    EntryPoint("blip2", "models.blip2.spec:SPEC", GROUP),
    EntryPoint("florence2", "models.florence2.spec:SPEC", GROUP),
)


@cache
def _registered() -> dict[str, list[EntryPoint]]:
    """Name -> its entry points; several where packages disagree. A name of this repository is not for others."""
    registered: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        if all(entry.value != other.value for other in registered.setdefault(entry.name, [])):
            registered[entry.name].append(entry)
    for entry in BUILT_IN:
        if others := [other.value for other in registered.get(entry.name, []) if other.value != entry.value]:
            _LOG.warning("architecture %r of %s is ignored: Pairmill has one of that name", entry.name, others[0])
        registered[entry.name] = [entry]
    return registered


def clear_cache() -> None:
    """Read the entry points anew at the next lookup, for a process in which packages are installed or removed."""
    _registered.cache_clear()
    conf_folders.cache_clear()


def architectures() -> list[str]:
    """Names of all registered architectures, sorted."""
    return sorted(_registered())


def spec(architecture: str) -> ModelSpec:
    """The spec registered under a name. Raises UserError that lists the known names."""
    if architecture not in _registered():
        clear_cache()  # its package may have been installed since
    if architecture not in _registered():
        raise UserError(
            f"architecture {architecture!r} is not known (known: {', '.join(architectures()) or 'none'}): correct it, "
            f"or install the package that registers it under {GROUP!r}"
        )
    entry, *others = _registered()[architecture]
    if others:
        raise UserError(
            f"architecture {architecture!r} is registered by two packages ({entry.value} and {others[0].value}): "
            "uninstall one of them"
        )
    try:
        loaded = entry.load()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"architecture {architecture!r}: {entry.value} cannot be imported ({type(error).__name__}: {reason}); "
            "correct or uninstall the package that registers it"
        ) from error
    if not isinstance(loaded, ModelSpec):
        raise UserError(f"architecture {architecture!r}: {entry.value} is not a models.common.spec.ModelSpec")
    if (default := loaded.config.model_fields["architecture"].default) != architecture:
        raise UserError(
            f"architecture {architecture!r}: its config's `architecture` is {default!r}; register it under that name"
        )
    return loaded


@cache
def conf_folders() -> tuple[Path, ...]:
    """Folders with further choices of `model` and `recipe`, which architectures of other packages bring.

    A package that cannot be imported is left out with a warning: it must not stand in the way of the others' models.
    """
    folders = []
    for name in architectures():
        try:
            folder = spec(name).conf
        except UserError as error:
            _LOG.warning("%s", error)
            continue
        if folder:
            folders.append(folder)
    return tuple(folders)


def config_class(fields: Mapping[str, Any]) -> type[ModelConfig]:
    """The schema of a model's fields, chosen by ``fields["architecture"]``. Raises ValidationError, for that key."""
    name = fields.get("architecture")
    if not name:
        raise _wrong_architecture("missing", name, f"missing; choose one of {', '.join(architectures())}")
    try:
        return spec(str(name)).config
    except UserError as error:
        raise _wrong_architecture("unknown_architecture", name, str(error)) from None


def _wrong_architecture(kind: LiteralString, name: Any, message: str) -> ValidationError:
    # The message is a value of the template, not the template: it may hold braces.
    problem = PydanticCustomError(kind, "{message}", {"message": message})
    return ValidationError.from_exception_data(
        "model", [InitErrorDetails(type=problem, loc=("architecture",), input=name)]
    )


def model_config(fields: Mapping[str, Any]) -> ModelConfig:
    """A model's config, validated by the schema of its architecture. Raises ValidationError."""
    return config_class(fields).model_validate(dict(fields))


#: Type of a config's field that holds any registered architecture's config.
AnyModelConfig = Annotated[
    SerializeAsAny[ModelConfig],
    BeforeValidator(lambda value: model_config(value) if isinstance(value, Mapping) else value),
]


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Number of parameters of each part, without torch; their sum is the model's total."""
    return spec(config.architecture).count_parameters(config)


def record_cost(
    config: ModelConfig, objective: str, tape: Tape, batch: MicroBatch, settings: Mapping[str, Any] | None = None
) -> Tape:
    """Record on a tape what one micro-batch of an objective computes, without torch; returns the tape.

    Raises NoCost where the architecture does not tell.
    """
    own = spec(config.architecture)
    if own.record_cost is None:
        raise NoCost(f"{config.name}: the architecture {config.architecture!r} does not tell its costs")
    own.record_cost(tape, config, objective, settings or {}, batch)
    return tape


def flops_per_sample(
    config: ModelConfig,
    objective: str,
    trainable: Collection[str],
    batch: MicroBatch,
    settings: Mapping[str, Any] | None = None,
    checkpointing: Mapping[str, int] | None = None,
) -> dict[str, Flops]:
    """FLOPs of one image with its texts, by part, without torch: the mean over a micro-batch of such a shape.

    `Flops.model` is what MFU counts, `Flops.hardware` what is executed with ``checkpointing`` (part -> k). Raises
    NoCost where the architecture does not tell.
    """
    tape = record_cost(config, objective, Tape(trainable=trainable, checkpointing=checkpointing), batch, settings)
    return {part: flops.divided(batch.images) for part, flops in tape.flops.items()}


def construct(
    config: ModelConfig, *, pad_id: int = 0, bos_id: int = 1, eos_id: int = 2, seed: int = 0
) -> tuple[VisionLanguageModel, dict[str, Values]]:
    """A model on the meta device, and what its weights start from: the values of every parameter and buffer by name.

    Random values depend on ``seed`` and the parameter's name alone; those of parts that ``initialise_from`` names come
    from its folders. Nothing is read or drawn before it is asked for. Raises UserError for folders that do not fit.
    """
    kind = resolve_name(spec(config.architecture).model)
    return _construct(config, kind, kind.config_class.of(config, pad_id=pad_id, bos_id=bos_id, eos_id=eos_id), seed)


def construct_saved(folder: str | Path, seed: int = 0) -> tuple[VisionLanguageModel, dict[str, Values]]:
    """The same for a saved model in a local folder: all values are the saved ones. Raises UserError when it holds none.

    A parameter that the folder lacks is an error, too: `seed` is for buffers that are not saved.
    """
    from models.common.construction import by_first_name, saved_names
    from models.common.weights import read_folder

    config = saved_config(folder)
    kind = resolve_name(spec(config.architecture).model)
    model, values = _construct(
        config, kind, kind.config_class.from_pretrained(str(folder), local_files_only=True), seed
    )
    saved = by_first_name(model, read_folder(folder, str(folder)))
    shapes = {name: tuple(tensor.shape) for name, tensor in saved_names(model).items()}
    for name, shape in shapes.items():
        if name not in saved or saved[name].shape != shape:
            state = f"has shape {list(saved[name].shape)} in it" if name in saved else "is missing from it"
            raise UserError(f"{folder}: weight {name} of shape {list(shape)} {state}; get the model's files again")
    return model, {**values, **saved}


def _construct(config: ModelConfig, kind: Any, saved: Any, seed: int) -> tuple[VisionLanguageModel, dict[str, Values]]:
    from models.common.initial_values import construct as record

    model, initial = record(lambda: kind(saved), seed)
    values: dict[str, Values] = dict(initial)
    own = spec(config.architecture)
    if own.initialise:
        values.update(resolve_name(own.initialise)(model, config, values))
    return model, values


def build(
    config: ModelConfig, *, pad_id: int = 0, bos_id: int = 1, eos_id: int = 2, seed: int = 0
) -> VisionLanguageModel:
    """A new model, whole, in float32 on the CPU, with the values of :func:`construct`. Raises UserError."""
    from models.common.construction import fill

    model, values = construct(config, pad_id=pad_id, bos_id=bos_id, eos_id=eos_id, seed=seed)
    fill(model, values)
    return model


def saved_config(folder: str | Path) -> ModelConfig:
    """The config of a model saved in a local folder, without loading it. Raises UserError when it holds none."""
    file = Path(folder, "config.json")
    if not file.is_file():
        raise UserError(f"{folder} holds no config.json: not a saved model")
    described = json.loads(file.read_text(encoding="utf-8"))
    fields = described.get("architecture")
    if not isinstance(fields, Mapping) or "architecture" not in fields:
        kind = described.get("model_type")
        raise UserError(f"{file}: model_type {kind!r} is no architecture of Pairmill's; give a model that it saved")
    try:
        return spec(str(fields["architecture"])).config.model_validate(dict(fields))
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def load(folder: str | Path) -> VisionLanguageModel:
    """A saved model from a local folder, offline, in evaluation mode. Raises UserError when it holds none."""
    kind: type[VisionLanguageModel] = resolve_name(spec(saved_config(folder).architecture).model)
    return kind.from_pretrained(str(folder), local_files_only=True).eval()


def _objective(architecture: str, name: str) -> Objective:
    known = spec(architecture).objectives
    if name not in known:
        raise UserError(f"objective {name!r} is not one of {architecture}'s: {', '.join(known)}")
    return known[name]


def objective_parts(config: ModelConfig, name: str) -> tuple[str, ...]:
    """The parts an objective uses; freeze all others. Raises UserError for an objective of another architecture."""
    parts = _objective(config.architecture, name).parts
    return parts(config) if callable(parts) else parts


def needs_texts(config: ModelConfig, name: str) -> bool:
    """Whether an objective learns from texts. Raises UserError for an objective of another architecture."""
    return _objective(config.architecture, name).needs_texts


def objective_settings(architecture: str, name: str, settings: Mapping[str, Any] | None = None) -> StrictConfig:
    """The settings of an objective by its schema. Raises UserError for the first that it does not take."""
    chosen = _objective(architecture, name)
    try:
        return chosen.settings.model_validate(dict(settings or {}))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        known = ", ".join(chosen.settings.model_fields) or "none"
        problem = "unknown" if first["type"] == "extra_forbidden" else f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        raise UserError(f"settings.{key} of {name}: {problem}; its settings are {known}") from None


def objective(model: VisionLanguageModel, name: str, settings: Mapping[str, Any] | None = None) -> nn.Module:
    """A module whose ``forward(batch)`` returns ``{"loss": scalar, its terms...}`` and whose ``model`` is the model.

    ``settings`` are validated by the objective's schema. Raises UserError for an objective of another architecture.
    """
    architecture = model.config.architecture["architecture"]
    module = resolve_name(_objective(architecture, name).module)
    made: nn.Module = module(model, objective_settings(architecture, name, settings))
    return made


def set_trainable(model: VisionLanguageModel, names: Sequence[str] | None) -> None:
    """Train the named parts and freeze the rest; None trains everything. Raises UserError for an unknown part."""
    parts = model.named_parts()
    trained = set(parts) if names is None else set(names)
    if unknown := sorted(trained - set(parts)):
        raise UserError(f"no such part: {', '.join(unknown)}; the model's are {', '.join(parts)}")
    for name, part in parts.items():
        part.requires_grad_(name in trained)


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
    beam_search: Any = model.generate
    generated: Tensor = beam_search(
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
    return generated
