"""From samples to the batch of tensors that models take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.batch import Batch
from stages.train.data.dataset import Text


def collate(
    pixels: NDArray[np.float32],
    image_ids: Sequence[int],
    texts: Sequence[Sequence[Text]],
    prompt_length: int = 0,
    target_length: int = 1,
    pad: int = 0,
) -> Batch:
    """A batch of images, float32 [images, 3, height, width], not copied, and every image's texts in turn.

    Prompts are padded on the left and targets on the right to the longest, but at least to the lengths given: ranks
    that agree on those have tensors of equal shape to gather.
    """
    flat = [text for own in texts for text in own]
    owners = [row for row, own in enumerate(texts) for _ in own]
    prompt_length = max([prompt_length, *(len(text.prompt) for text in flat)])
    target_length = max([target_length, *(len(text.target) for text in flat)])
    prompt = np.full((len(flat), prompt_length), pad, dtype=np.int64)
    target = np.full((len(flat), target_length), pad, dtype=np.int64)
    prompt_mask, target_mask = np.zeros_like(prompt), np.zeros_like(target)
    for row, text in enumerate(flat):
        if len(text.prompt):
            prompt[row, -len(text.prompt) :] = text.prompt
            prompt_mask[row, -len(text.prompt) :] = 1
        target[row, : len(text.target)] = text.target
        target_mask[row, : len(text.target)] = 1
    return Batch(
        pixels=torch.from_numpy(pixels),
        image_index=torch.tensor(owners, dtype=torch.int64),
        image_id=torch.tensor([image_ids[owner] for owner in owners], dtype=torch.int64),
        prompt_ids=torch.from_numpy(prompt),
        prompt_mask=torch.from_numpy(prompt_mask),
        target_ids=torch.from_numpy(target),
        target_mask=torch.from_numpy(target_mask),
    )
