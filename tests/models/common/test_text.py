"""Operations on padded token ids."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from models.common import text

prompts = st.lists(st.lists(st.integers(3, 50), max_size=6), min_size=1, max_size=4)


def left_padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], dtype=torch.long)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], dtype=torch.long)
    return ids.reshape(len(rows), longest), mask.reshape(len(rows), longest)


@given(prompts)
def test_framing_puts_bos_right_before_each_prompt(rows: list[list[int]]) -> None:
    ids, mask = text.frame_prompt(*left_padded(rows), pad_id=0, bos_id=1)
    assert [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)] == [[1, *row] for row in rows]
    assert (ids[mask == 0] == 0).all()
    assert (mask.diff(dim=1) >= 0).all()


@given(prompts)
def test_padding_moves_to_the_right_and_tokens_keep_their_order(rows: list[list[int]]) -> None:
    ids, mask = text.pad_right(*left_padded(rows))
    assert [row[: int(real.sum())].tolist() for row, real in zip(ids, mask, strict=True)] == rows
    assert (mask.diff(dim=1) <= 0).all()


def test_a_decoder_is_given_all_but_the_last_token() -> None:
    assert text.shift_right(torch.tensor([[5, 6, 2], [7, 2, 0]]), 1).tolist() == [[1, 5, 6], [1, 7, 2]]


def test_positions_start_at_each_rows_first_token() -> None:
    assert text.positions(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
