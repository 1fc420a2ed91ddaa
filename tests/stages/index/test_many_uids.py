"""More uids than one column of text can hold pass through the index's search for equal keys, range by range."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.process_memory import measured
from benchmarks.scale_artifacts import hexadecimal, mix
from stages.base.exchange import Exchange
from stages.base.uids import bytes_of, packed
from stages.index import equal
from stages.index.columns import first_of

ROOT = Path(__file__).parents[3]
#: Of 32 digits each, 67.1 million uids reach the 2 GiB that a column of text with 32-bit offsets ends at.
UIDS = 68_000_000
PER_RANGE = 1_000_000
RANGES = UIDS // PER_RANGE
#: Uids of every range that the first one has, too.
COPIES = 1000


@pytest.mark.slow
def test_68_million_uids_in_the_memory_of_a_range(tmp_path: Path) -> None:
    code = "import sys; from tests.stages.index.test_many_uids import find_equal; find_equal(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = measured([sys.executable, "-c", code, str(tmp_path)], tmp_path / "log", ROOT, environment)
    assert run.code == 0, (tmp_path / "log").read_text()[-2000:]
    assert run.peaks.driver_anonymous < 600  # MB; the digits alone are 2,176


def find_equal(folder: str) -> None:
    """The passes that find images of equal pixels, over uids in place of digests; checks every row's leader."""
    keys, answers = Exchange(f"{folder}/keys", RANGES), Exchange(f"{folder}/answers", RANGES)
    for number in range(RANGES):
        rows = _rows(number)
        uids = bytes_of(packed(hexadecimal(_uids(rows))))
        first = equal.send_firsts(keys, number, uids, rows, uids[:, :8].copy().view(np.uint64).ravel())
        np.save(f"{folder}/first-{number}.npy", first)
    for bucket in range(RANGES):
        uids, rows = equal.received(keys, bucket)
        equal.answer(answers, bucket, rows, first_of(uids), rows // PER_RANGE)
    for number in range(RANGES):
        rows = _rows(number)
        leader, copied = equal.leaders(answers, number, np.load(f"{folder}/first-{number}.npy"), rows)
        place = rows % PER_RANGE
        assert (leader == _original(rows)).all()
        assert (copied == ((place >= PER_RANGE - COPIES) if number else (place < COPIES))).all()


def _rows(number: int) -> NDArray[np.int64]:
    return np.arange(number * PER_RANGE, (number + 1) * PER_RANGE, dtype=np.int64)


def _original(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row with the uid of each."""
    back = rows % PER_RANGE - (PER_RANGE - COPIES)
    return np.where((back >= 0) & (rows >= PER_RANGE), back, rows)


def _uids(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    original = _original(rows)
    return np.stack([mix(original, 1), mix(original, 2)], axis=1).view(np.uint8)
