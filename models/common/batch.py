"""The batch that every objective takes: plain tensors with fixed names and layouts."""

from __future__ import annotations

from typing import NotRequired, TypedDict

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

    # What the loader knows and adds, so that no GPU need be waited for. Where a field is absent, it is computed.
    target_positions: NotRequired[Tensor]
    """int64 [target tokens]; where `target_mask`, flattened, is 1, ascending."""
    full_prompts: NotRequired[bool]
    """Whether no prompt is padded. A plain bool: what decides which kernel is started must be known to the host."""

    # Training only: what a loss that is a sum over the micro-batch is divided by, so that its mean over all
    # micro-batches and ranks is the mean over the global batch. Equal in all micro-batches of a step; absent elsewhere,
    # where an objective divides by the counts of the batch itself.
    mean_target_tokens: NotRequired[Tensor]
    """float32 scalar; mean number of target tokens of a micro-batch, over the step's global batch as it was planned: a
    sample that takes a damaged one's place may have fewer."""
    mean_texts: NotRequired[Tensor]
    """float32 scalar; the same of texts."""
    image_seed: NotRequired[Tensor]
    """int64 [m]; drawn from (seed, epoch, sample): what is random about an image follows from it, whichever micro-batch
    or rank the image is in. Absent: torch's generator decides."""
