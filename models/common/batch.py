"""The batch that every objective takes: plain tensors with fixed names and layouts."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict):
    """``m`` images and ``n`` texts, each a (prompt, target) about one of the images.

    Several texts may share an image (a photograph's five captions, all questions on it), which is then encoded once.
    Every image has a text, except in a phase whose objective needs none (`models.common.spec.Objective.needs_texts`).

    Prompts are padded on the left and targets on the right, so that prompt and target meet without a gap; positions
    must be computed from the masks. A captioning sample has an empty prompt (length 0 is allowed for the batch).
    """

    pixels: Tensor
    """float32 [m, 3, height, width], normalised."""
    image_index: Tensor
    """int64 [n]; the row of `pixels` that each text is about."""
    image_id: Tensor
    """int64 [n]; equal for texts of the same image, also over ranks, so that a contrastive loss does not
    take them for negatives of each other."""
    prompt_ids: Tensor
    """int64 [n, prompt_length], left-padded with the pad id; no bos, no eos."""
    prompt_mask: Tensor
    """int64 [n, prompt_length], 1 on tokens."""
    target_ids: Tensor
    """int64 [n, target_length], right-padded; no bos, ends with eos."""
    target_mask: Tensor
    """int64 [n, target_length], 1 on tokens, eos included."""
