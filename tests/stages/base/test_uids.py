"""uids as 16 bytes."""

from __future__ import annotations

import pyarrow as pa
import pytest

from stages.base.uids import UID, as_hex, bytes_of, leading, packed, sort_order, trailing

_UIDS = ["00112233445566778899aabbccddeeff", "f" * 32, "0" * 32, "ffffffffffffffff0000000000000001"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_hex_digits_come_back_from_any_column(kind: pa.DataType) -> None:
    whole = pa.array(["a" * 32, *_UIDS, "b" * 32], kind)
    for column in (whole[1:5], pa.chunked_array([whole[1:2], whole[2:2], whole[2:5]])):
        short = packed(column)
        assert short.type == UID
        assert as_hex(short).to_pylist() == _UIDS
        assert as_hex(short[1:3]).to_pylist() == _UIDS[1:3]
    assert as_hex(packed(pa.array([], kind))).to_pylist() == []


def test_more_digits_than_one_array_holds_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """32-bit offsets end at 67 million uids; a range may have more."""
    monkeypatch.setattr("stages.base.uids._MOST_TEXTS", 2)
    short = packed(pa.array([*_UIDS, "a" * 32]))
    for column in (short, pa.chunked_array([short])):
        digits = as_hex(column)
        assert [len(chunk) for chunk in digits.chunks] == [2, 2, 1]
        assert digits.to_pylist() == [*_UIDS, "a" * 32]


def test_nulls_stay_null_on_the_way_to_digits() -> None:
    column = pa.array([bytes(16), None], UID)
    assert as_hex(column).to_pylist() == ["0" * 32, None]
    assert as_hex(pa.chunked_array([column, column])).to_pylist() == ["0" * 32, None] * 2


@pytest.mark.parametrize("wrong", ["0" * 31, "0" * 33, "G" + "0" * 31, "A" * 32, None])
def test_what_is_no_uid_is_refused(wrong: str | None) -> None:
    with pytest.raises(ValueError, match="uid"):
        packed(pa.array(["0" * 32, wrong]))


def test_order_and_halves_are_those_of_the_digits() -> None:
    short = packed(pa.array(_UIDS))
    assert [_UIDS[n] for n in sort_order(short)] == sorted(_UIDS)
    assert [f"{n:016x}" for n in leading(short)] == [uid[:16] for uid in _UIDS]
    assert [f"{n:016x}" for n in trailing(short)] == [uid[16:] for uid in _UIDS]
    assert bytes_of(pa.chunked_array([], UID)).shape == (0, 16)
