"""Weights of a phase, written as shards and read as whole parameters, or as shares of another division."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stages.train.trainer.phase_weights import (
    TensorParallelValues,
    WeightShard,
    read_phase_weights,
    write_phase_weights,
)


@pytest.mark.parametrize("dim", [None, 0, 1])
def test_shards_of_any_division_are_read_as_one(dim: int | None, tmp_path: Path) -> None:
    whole = torch.randn(6, 8)
    rank = 0
    for share in range(1 if dim is None else 2):
        size = whole.shape[dim or 0] // 2
        split = None if dim is None else (dim, share * size, (share + 1) * size)
        own = whole if dim is None else whole.narrow(dim, share * size, size).contiguous()
        flat = own.reshape(-1)
        for start, stop in ((0, 7), (7, len(flat))):
            write_phase_weights(
                tmp_path, rank, {"w": (tuple(whole.shape), split, WeightShard(start, stop, flat[start:stop]))}
            )
            rank += 1
    (values,) = read_phase_weights(tmp_path).values()
    assert torch.equal(values.whole(), whole)
    for start, stop in ((0, 5), (6, 9), (13, 47), (47, 48)):
        assert torch.equal(values.flat(start, stop), whole.reshape(-1)[start:stop])
    for other in (0, 1):
        share_of = TensorParallelValues(values, other, 2, 5)
        expected = whole.narrow(other, 2, 3)
        assert torch.equal(share_of.whole(), expected)
        assert torch.equal(share_of.flat(3, 11), expected.reshape(-1)[3:11])


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_phase_weights(tmp_path, 1, {"w": ((6, 8), None, WeightShard(10, 48, torch.zeros(38)))})
    with pytest.raises(ValueError, match="of w some elements are missing"):
        read_phase_weights(tmp_path)["w"].whole()
