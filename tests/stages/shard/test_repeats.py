"""Equal keys among many, in memory and through files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stages.shard.repeats import RepeatedKeys


@pytest.mark.parametrize("held", [10**6, 700, 0])
def test_equal_keys_are_found_in_order_however_many_are_held(
    held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    draw = np.random.default_rng(0)
    keys = draw.integers(0, 2**64, (20, 100), dtype=np.uint64)
    keys[3, 5] = keys[17, 2] = keys[9, 9] = keys[0, 0]
    keys[4, 1:3] = keys[4, 0]
    expected = [((0, 0), (3, 5)), ((3, 5), (9, 9)), ((9, 9), (17, 2))], [((4, 0), (4, 1)), ((4, 1), (4, 2))]
    with RepeatedKeys(held) as digests:
        for shard in draw.permutation(20).tolist():
            digests.add(shard, keys[shard])
        found = list(digests.pairs())
        assert bool(list(tmp_path.iterdir())) == (held < 2000)
    one, other = expected if keys[0, 0] < keys[4, 0] else expected[::-1]
    assert found == one + other
    assert not list(tmp_path.iterdir())


def test_no_key_at_all_is_no_pair() -> None:
    with RepeatedKeys() as digests:
        digests.add(0, np.empty(0, np.uint64))
        assert list(digests.pairs()) == []
