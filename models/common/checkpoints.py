"""Weights of released checkpoints, by the names and in the shapes that a model of ours has for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from models.common.errors import UserError
from models.common.position_embeddings import resize_positions
from models.common.weights import FirstRows, StoredValues, TransformedValues, Values

#: What safetensors calls the dtypes that weights are trained in.
_FLOATS = ("F64", "F32", "F16", "BF16")

C = TypeVar("C", bound=PreTrainedConfig)


def inner(stored: Mapping[str, Values], *prefixes: str) -> dict[str, Values]:
    """What lies under the first of ``prefixes`` that any name begins with, without it; all where none does."""
    for prefix in prefixes:
        if found := {name[len(prefix) :]: values for name, values in stored.items() if name.startswith(prefix)}:
            return found
    return dict(stored)


def named_as(kind: type[PreTrainedModel], config: PreTrainedConfig, stored: Mapping[str, Values]) -> dict[str, Values]:
    """Stored tensors by the names that they have in a model of ``kind``; those that it has no use for are left out.

    Checkpoints keep the names of the time they were saved in. The table that translates them is `transformers`' own,
    as for `from_pretrained`; in some families it also says how tensors are merged or split.
    """
    with torch.device("meta"):
        model = kind(config)
    own: dict[str, Tensor] = model.state_dict()
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    named: dict[str, Values] = {}
    merged: dict[str, _Conversion] = {}
    for name, values in sorted(stored.items(), key=lambda item: dot_natural_key(item[0])):
        renamed, converted = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        if renamed not in own and name in own:
            renamed = name
        if renamed not in own:
            continue
        if converted is None:
            named[renamed] = values
        else:
            conversion = merged.setdefault(renamed, _Conversion(by_pattern[converted], renamed, model))
            conversion.parts.append((converted, name, values))
    for conversion in merged.values():
        named |= {name: _Converted(conversion, name, own[name]) for name in conversion.targets(own)}
    return named


class _Conversion:
    """One run of `transformers`' conversion: tensors of a checkpoint, such as a layer's experts, into parameters."""

    def __init__(self, converter: WeightConverter, first: str, model: PreTrainedModel) -> None:
        self._converter, self._first, self._model = converter, first, model
        self.parts: list[tuple[str, str, Values]] = []

    def targets(self, own: Iterable[str]) -> list[str]:
        """The parameters it makes."""
        first, *others = self._converter.target_patterns
        names = [self._first, *(self._first.replace(first, other) for other in others)]
        return [name for name in names if name in own]

    @lru_cache(maxsize=1)  # noqa: B019 - of all conversions one result is kept, since parameters are asked for in blocks
    def run(self) -> dict[str, Tensor]:
        """Read its tensors and convert them."""
        converter = deepcopy(self._converter)
        for pattern, name, values in self.parts:
            converter.add_tensor(self._first, name, pattern, values.whole)  # type: ignore[arg-type]
        made = converter.convert(self._first, model=self._model, config=self._model.config)
        return {name: tensor[0] if isinstance(tensor, list) else tensor for name, tensor in made.items()}


class _Converted(Values):
    """A parameter that a conversion makes; all of its tensors are read for any piece of it."""

    def __init__(self, conversion: _Conversion, name: str, like: Tensor) -> None:
        super().__init__(tuple(like.shape))
        self._conversion, self._name = conversion, name

    def flat(self, start: int, stop: int) -> Tensor:
        """See :meth:`models.common.weights.Values.flat`."""
        return self._conversion.run()[self._name].reshape(-1)[start:stop]


def stored_config(kind: type[C], described: Mapping[str, Any], folder: str | Path, key: str) -> C:
    """The `transformers` config that a config.json, or a part of one, describes. Raises UserError."""
    try:
        return kind.from_dict(dict(described))
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{key}: {folder}: its config.json does not describe a {kind.model_type} ({reason})") from None


def check_settings(
    theirs: PreTrainedConfig, ours: PreTrainedConfig, names: Iterable[str], folder: str | Path, key: str
) -> None:
    """Raise UserError for the first setting in ``names`` that differs: what the shapes of weights do not show.

    Numbers that differ by float32's rounding are equal: some formats keep them so.
    """
    for name in names:
        there, here = getattr(theirs, name, None), getattr(ours, name, None)
        if there != here and not _are_close(there, here):
            raise UserError(f"{key}: {folder} was trained with {name}={there}, this model has {here}")


def _are_close(there: Any, here: Any) -> bool:
    return isinstance(there, float) and isinstance(here, float) and math.isclose(there, here, rel_tol=1e-6)


def fit(
    module: nn.Module,
    prefix: str,
    named: Mapping[str, Values],
    folder: str | Path,
    key: str,
    *,
    optional: Callable[[str], bool] = lambda name: False,
) -> dict[str, Values]:
    """The values of each parameter and each saved buffer of a module, by its name in the model, ``prefix`` before it.

    ``named`` has them by the names in the module. Names for which ``optional`` is true may be missing. Raises
    UserError, naming the config ``key``, the folder, and the first tensor that is missing or of another shape.
    """
    own: dict[str, Tensor] = dict(module.named_parameters())
    tied = dict(module.named_parameters(remove_duplicate=False))
    own |= {name: tensor for name, tensor in module.state_dict().items() if name not in tied}
    missing = [name for name in own if name not in named and not optional(name)]
    if missing:
        raise UserError(f"{key}: {folder} lacks {len(missing)} of this model's weights, first {missing[0]}")
    fitting = {}
    for name, tensor in own.items():
        if name not in named:
            continue
        values = named[name]
        if isinstance(values, StoredValues) and values.stored_dtype not in _FLOATS:
            raise UserError(
                f"{key}: {folder} holds {name} as {values.stored_dtype}, quantised; give the weights it was made from"
            )
        if values.shape != tuple(tensor.shape):
            there, here = list(values.shape), list(tensor.shape)
            raise UserError(f"{key}: {folder} does not fit this model: {name} is {there} there and {here} here")
        fitting[prefix + name] = values
    return fitting


def resized_positions(values: Values, patches: int, *, class_token: bool = True) -> Values:
    """Learned positions, [tokens, width] or [1, tokens, width], for another number of patches: as `resize_positions`.

    As they are where their own number is that of no square grid: no shape of any model.
    """
    *lead, tokens, width = values.shape
    old = tokens - class_token
    if old == patches or round(old**0.5) ** 2 != old:
        return values

    def resize(positions: Tensor) -> Tensor:
        return resize_positions(positions.reshape(tokens, width), patches, class_token=class_token).reshape(shape)

    shape = (*lead, patches + class_token, width)
    return TransformedValues(values, resize, shape)


def fitted_rows(values: Values, initial: Values, take: bool) -> Values:
    """Values of an embedding per id for this model's number of ids: the weights' own as far as they go, if ``take``."""
    if not take:
        return initial
    if values.shape[1:] != initial.shape[1:] or values.shape == initial.shape:
        return values  # which is refused for its shape, or fits
    return FirstRows(values, initial)
