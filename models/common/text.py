"""Operations on padded token ids that architectures share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def frame_prompt(prompt_ids: Tensor, prompt_mask: Tensor, *, pad_id: int, bos_id: int) -> tuple[Tensor, Tensor]:
    """Put bos before the first token of left-padded prompts.

    ``prompt_ids``, ``prompt_mask``: int64 [n, length] (length may be 0). Returns ids and mask, [n, length + 1].
    """
    ids = F.pad(prompt_ids, (1, 0), value=pad_id)
    mask = F.pad(prompt_mask, (1, 0))
    start = prompt_ids.shape[1] - prompt_mask.sum(dim=1, keepdim=True)
    return ids.scatter(1, start, bos_id), mask.scatter(1, start, 1)


def pad_right(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the padding of left-padded rows to their right end; both int64 [n, length]."""
    padding = ids.shape[1] - mask.sum(dim=1)
    return rotate_left(ids, padding), rotate_left(mask, padding)


def rotate_left(ids: Tensor, by: Tensor) -> Tensor:
    """Move the first ``by`` int64 [n] places of each row to its end; ``ids`` int64 [n, length]."""
    length = ids.shape[1]
    order = (torch.arange(length, device=ids.device) + by[:, None]) % max(length, 1)
    return ids.gather(1, order)


def shift_right(target_ids: Tensor, first_id: int) -> Tensor:
    """The decoder's input for a target: ``first_id``, then all but the last token; int64 [n, length]."""
    return F.pad(target_ids[:, :-1], (1, 0), value=first_id)


def text_key(ids: Tensor, mask: Tensor) -> Tensor:
    """A 64-bit hash of each right-padded text, the same whatever its padding: int64 [n].

    A polynomial in an odd constant modulo 2**64, so every rank gets the same key for the same text.
    """
    factor = torch.full((ids.shape[1],), 6364136223846793005, dtype=torch.int64, device=ids.device)
    return ((ids + 1) * mask * factor.cumprod(0)).sum(dim=1)


def positions(mask: Tensor) -> Tensor:
    """Position of each token among its row's tokens, from 0; padding gets 0. int64 like ``mask``."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
