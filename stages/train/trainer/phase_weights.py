"""The weights that a finished phase trained: every rank's float32 shards in a file of its own, read back by range.

No rank gathers anything: a rank writes what its optimizer holds. Whoever reads, the next phase on any number of ranks
or the export of the model, puts together the elements it needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.common.safetensors_file import write_safetensors
from models.common.weights import StoredValues, Values, blocks

#: Folder, in that of a finished phase, of the files.
FOLDER = "weights"

Split = tuple[int, int, int]
"""(dimension, first index, last index + 1): a tensor-parallel rank's share of a parameter."""


@dataclass(frozen=True)
class WeightShard:
    """Elements [start, stop) of a parameter, flattened as the rank's tensor-parallel share of it is."""

    start: int
    stop: int
    tensor: Tensor
    """1-D, of that many elements: memory of the engine."""


def tensor_parallel_split(weight: nn.Parameter) -> Split | None:
    """Which share of a parameter this rank has under tensor parallelism; None where it is not split."""
    described = _tensor_parallel_layout(weight)
    if described is None or described["partition_dim"] is None:
        return None
    from deepspeed.utils import groups

    sizes, rank = described["partition_sizes"], groups.get_tensor_model_parallel_rank()
    start = sum(sizes[:rank])
    return described["partition_dim"], start, start + sizes[rank]


def whole_shape(weight: nn.Parameter) -> tuple[int, ...]:
    """The shape that a parameter has without tensor parallelism and ZeRO-3."""
    described = _tensor_parallel_layout(weight)
    return tuple(described["original_shape"] if described else getattr(weight, "ds_shape", weight.shape))


def _tensor_parallel_layout(weight: nn.Parameter) -> Mapping[str, Any] | None:
    """What DeepSpeed's layers note on their parameters, for its checkpoints."""
    return getattr(weight, "ds_autotp_universal_checkpoint_meta", None)


class TensorParallelValues(Values):
    """A share of other values along dimension 0 or 1."""

    def __init__(self, base: Values, dim: int, start: int, stop: int) -> None:
        super().__init__(tuple(stop - start if axis == dim else size for axis, size in enumerate(base.shape)))
        self._base, self._dim, self._start = base, dim, start
        if dim not in (0, 1):
            raise ValueError(f"a split along dimension {dim} is not supported")

    def flat(self, start: int, stop: int) -> Tensor:
        """See :meth:`Values.flat`."""
        if self._dim == 0:
            offset = self._start * math.prod(self.shape[1:])
            return self._base.flat(offset + start, offset + stop)
        inner = math.prod(self.shape[2:])
        width, whole = self.shape[1] * inner, self._base.shape[1] * inner
        first, last = start // width, -(-stop // width)
        rows = self._base.flat(first * whole, last * whole).view(-1, whole)
        columns = rows[:, self._start * inner : self._start * inner + width].reshape(-1)
        return columns[start - first * width : stop - first * width]


@dataclass(frozen=True)
class _Piece:
    """Elements [start, stop) of a share of a parameter, in a file."""

    start: int
    stop: int
    values: StoredValues


class PiecedValues(Values):
    """A parameter put together from pieces of its tensor-parallel shares."""

    def __init__(self, shape: tuple[int, ...], dim: int | None, shares: Mapping[tuple[int, int], list[_Piece]]) -> None:
        super().__init__(shape)
        self._dim = dim
        self._shares = sorted(shares.items())

    def flat(self, start: int, stop: int) -> Tensor:
        """See :meth:`Values.flat`."""
        if self._dim is None:
            return _read(self._shares[0][1], start, stop)
        if self._dim == 0:
            row = math.prod(self.shape[1:])
            found = [
                _read(pieces, max(start - low * row, 0), min(stop, high * row) - low * row)
                for (low, high), pieces in self._shares
                if low * row < stop and high * row > start
            ]
            return torch.cat(found)
        inner = math.prod(self.shape[2:])
        whole = self.shape[1] * inner
        first, last = start // whole, -(-stop // whole)
        columns = [
            _read(pieces, first * (high - low) * inner, last * (high - low) * inner).view(last - first, -1)
            for (low, high), pieces in self._shares
        ]
        return torch.cat(columns, dim=1).reshape(-1)[start - first * whole : stop - first * whole]


def _read(pieces: list[_Piece], start: int, stop: int) -> Tensor:
    found = [
        piece.values.flat(max(start, piece.start) - piece.start, min(stop, piece.stop) - piece.start)
        for piece in pieces
        if piece.start < stop and piece.stop > start
    ]
    whole = torch.cat(found) if found else torch.empty(0)
    if len(whole) != stop - start:
        raise ValueError(f"{pieces[0].values.file.parent}: of {pieces[0].values.key} some elements are missing")
    return whole


def write_phase_weights(
    phase: Path, rank: int, shards: Mapping[str, tuple[tuple[int, ...], Split | None, WeightShard]]
) -> None:
    """Write a rank's shards by parameter, each with the parameter's whole shape and the rank's share of it.

    `rank-NNNNN.safetensors` has them as 1-D float32 tensors under the parameters' names; `rank-NNNNN.json`, written
    last, says which elements they are. Raises OSError.
    """
    folder = phase / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"rank-{rank:05d}"
    shapes = {name: (torch.float32, (shard.stop - shard.start,)) for name, (_, _, shard) in shards.items()}
    pieces = (
        shard.tensor[start:stop].to("cpu", torch.float32)
        for _, _, shard in shards.values()
        for start, stop in blocks(0, shard.stop - shard.start)
    )
    write_safetensors(stem.with_suffix(".safetensors"), shapes, pieces)
    described = {
        name: {"shape": list(shape), "share": share, "start": shard.start, "stop": shard.stop}
        for name, (shape, share, shard) in shards.items()
    }
    stem.with_suffix(".json").write_text(json.dumps(described), encoding="utf-8")


def read_phase_weights(phase: Path) -> dict[str, Values]:
    """The weights that a finished phase trained, by parameter. Opens the files, reads no tensor."""
    shapes: dict[str, tuple[int, ...]] = {}
    dims: dict[str, int | None] = {}
    shares: dict[str, dict[tuple[int, int], list[_Piece]]] = {}
    for file in sorted((phase / FOLDER).glob("rank-*.json")):
        for name, described in json.loads(file.read_text(encoding="utf-8")).items():
            dim, low, high = described["share"] or (None, 0, 0)
            shapes[name], dims[name] = tuple(described["shape"]), dim
            piece = _Piece(described["start"], described["stop"], StoredValues(file.with_suffix(".safetensors"), name))
            shares.setdefault(name, {}).setdefault((low, high), []).append(piece)
    for own in shares.values():
        for pieces in own.values():
            pieces.sort(key=lambda piece: piece.start)
    return {name: PiecedValues(shapes[name], dims[name], own) for name, own in shares.items()}
