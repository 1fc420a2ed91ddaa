"""Values of parameters that can be read piece by piece, so that no process holds a whole model to fill its share."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.common.errors import UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Values(ABC):
    """The values of one parameter."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = tuple(shape)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @abstractmethod
    def flat(self, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of the flattened parameter: a 1-D tensor on the CPU, in any floating dtype."""

    def whole(self) -> Tensor:
        """All of it, of :attr:`shape`; for what is small."""
        return self.flat(0, self.numel).reshape(self.shape)


class StoredValues(Values):
    """A tensor of a safetensors file, of which only the rows that are asked for are read."""

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.key = file, key
        handle = _open(file)
        if key not in _names(file):
            raise UserError(
                f"{file} has no tensor {key}, which its index looks for there; get the folder's files again"
            )
        described = handle.get_slice(key)
        super().__init__(tuple(described.get_shape()))
        self.stored_dtype: str = described.get_dtype()
        """Its dtype as safetensors names it: F32, BF16, ..."""

    def flat(self, start: int, stop: int) -> Tensor:
        """See :meth:`Values.flat`."""
        handle = _open(self.file)
        if not self.shape:
            return handle.get_tensor(self.key).reshape(-1)[start:stop]
        row = math.prod(self.shape[1:])
        first, last = start // row, -(-stop // row)
        rows: Tensor = handle.get_slice(self.key)[first:last]
        return rows.reshape(-1)[start - first * row : stop - first * row]


class TransformedValues(Values):
    """What a function makes of other values; it is given and makes whole tensors, so for what is small."""

    def __init__(self, base: Values, function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self._base, self._function = base, function

    def flat(self, start: int, stop: int) -> Tensor:
        """See :meth:`Values.flat`."""
        made = self._function(self._base.whole())
        if tuple(made.shape) != self.shape:
            raise ValueError(f"values of shape {tuple(made.shape)}, expected {self.shape}")
        return made.reshape(-1)[start:stop]


class FirstRows(Values):
    """The first rows of other values, as many as both have; the remaining ones from the parameter's initial values.

    For embeddings of another number of ids: rows beyond those of the weights start at random.
    """

    def __init__(self, base: Values, initial: Values) -> None:
        if base.shape[1:] != initial.shape[1:]:
            raise ValueError(f"rows of shape {base.shape[1:]}, expected {initial.shape[1:]}")
        super().__init__(initial.shape)
        self._base, self._initial = base, initial

    def flat(self, start: int, stop: int) -> Tensor:
        """See :meth:`Values.flat`."""
        end = min(self._base.numel, self.numel)
        pieces = []
        if start < end:
            pieces.append(self._base.flat(start, min(stop, end)))
        if stop > end:
            pieces.append(self._initial.flat(max(start, end), stop))
        return torch.cat([piece.float() for piece in pieces]) if len(pieces) > 1 else pieces[0]


def read_folder(folder: str | Path, key: str) -> dict[str, Values]:
    """Every tensor of a `transformers` folder of safetensors, one file or several with an index, by name.

    Opens the files but reads no tensor. Raises UserError, naming the config ``key``, for files that are missing or cut
    short.
    """
    folder = Path(folder)
    index = folder / INDEX
    try:
        if index.is_file():
            files: Mapping[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
            return {name: StoredValues(folder / file, name) for name, file in files.items()}
        if (folder / SINGLE).is_file():
            return {name: StoredValues(folder / SINGLE, name) for name in _open(folder / SINGLE).keys()}  # noqa: SIM118
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{key}: {index} is no index of safetensors files ({error}); get it again") from None
    if other := next(iter(sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))), None):
        kind = _class_name(folder)
        raise UserError(
            f"{key}: {folder} holds {other.name}, a pickle, which runs code when it is read; convert it if you trust "
            f'it: python -c "from transformers import {kind} as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\" and give that folder"
        )
    raise UserError(
        f"{key}: {folder} holds neither {SINGLE} nor {INDEX}; give a folder of weights in safetensors "
        "(`save_pretrained` of `transformers` converts others)"
    )


def _class_name(folder: Path) -> str:
    """The class of `transformers` that a folder's config.json names."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return "AutoModel"


def blocks(start: int, stop: int, size: int = 1 << 22) -> Iterator[tuple[int, int]]:
    """[start, stop) cut at the multiples of ``size`` elements."""
    while start < stop:
        end = min(stop, (start // size + 1) * size)
        yield start, end
        start = end


@lru_cache(maxsize=64)
def _names(file: Path) -> frozenset[str]:
    return frozenset(_open(file).keys())


@lru_cache(maxsize=64)
def _open(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{file}: these weights cannot be read ({str(error).splitlines()[0]}); get them again"
        ) from None
