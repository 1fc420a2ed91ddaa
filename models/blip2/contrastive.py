"""Functions of stage 1's losses: gathering over ranks, contrastive targets, hard negatives. No parameters here."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    """Concatenate equally shaped tensors of all ranks; the gradient of a rank's slice is summed over ranks."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        gathered = [torch.empty_like(local) for _ in range(_world())]
        dist.all_gather(gathered, local.contiguous())
        ctx.rows = local.shape[0]
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        start = dist.get_rank() * ctx.rows
        return grad[start : start + ctx.rows]


def row_counts(*local: Tensor) -> list[list[int]] | None:
    """For each of some tensors its number of rows on every rank, found in one exchange; None without other ranks.

    Waits for the device.
    """
    if (world := _world()) == 1:
        return None
    rows = torch.tensor([len(tensor) for tensor in local], device=local[0].device)
    of_ranks = [torch.empty_like(rows) for _ in range(world)]
    dist.all_gather(of_ranks, rows)
    counts: list[list[int]] = torch.stack(of_ranks, dim=1).tolist()
    return counts


def gather(local: Tensor, counts: list[int] | None = None) -> Tensor:
    """Rows of all ranks, in rank order, with gradients to each; ranks may hold different numbers of rows.

    ``counts``: rows of every rank where they are known, as from :func:`row_counts`; otherwise they are exchanged.

    Ranks average their gradients afterwards, so the sum over ranks in backward gives the gradient of the mean loss.
    Without a process group, or with one rank, the tensor itself.
    """
    world = _world()
    if world == 1:
        return local
    if counts is None:
        (counts,) = row_counts(local) or [[]]
    longest = max(counts)
    padded = F.pad(local, (0, 0) * (local.ndim - 1) + (0, longest - local.shape[0]))
    everything = cast(Tensor, _Gather.apply(padded))
    return torch.cat([everything[rank * longest : rank * longest + n] for rank, n in enumerate(counts)])


def image_ids(image_index: Tensor, image_id: Tensor, images: int) -> Tensor:
    """The id of each image, int64 [images], taken from its texts; -1 - row for an image without a text."""
    own = -1 - torch.arange(images, device=image_id.device)
    return own.scatter(0, image_index, image_id)


def positives(text_image: Tensor, keys: Tensor, all_text_image: Tensor, all_keys: Tensor, all_images: Tensor) -> Tensor:
    """Which images are positives of each text, bool [n, all images].

    These are its own image (same id, on any rank) and every image that has the same text on any rank: "a red triangle"
    is not a negative of another red triangle. ``text_image`` [n] and ``all_text_image``
    [all n] are the image ids of texts, ``keys`` their hashes, ``all_images`` [all m] the ids of images.
    """
    same_text = (keys[:, None] == all_keys[None, :]).float()
    described = (all_text_image[:, None] == all_images[None, :]).float()
    return (text_image[:, None] == all_images[None, :]) | (same_text @ described > 0)


def soft_cross_entropy(logits: Tensor, positive: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy against the uniform distribution over each row's positives, smoothed over all columns, summed.

    Both [rows, columns]; rows without a positive do not count.
    """
    weight = positive.float()
    number = weight.sum(dim=1, keepdim=True)
    target = (1 - label_smoothing) * weight / number.clamp(min=1) + label_smoothing / logits.shape[1]
    per_row = -(target * logits.log_softmax(dim=1)).sum(dim=1)
    return (per_row * (number.squeeze(1) > 0)).sum()


def hard_negatives(similarity: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a negative column per row from torch's generator, the more similar the likelier (ALBEF, section 3.2).

    ``similarity`` float [rows, columns], ``positive`` bool of the same shape. Returns int64 [rows] and bool [rows]:
    whether the row had a negative (if not, the drawn column is arbitrary).
    """
    weights = similarity.detach().float().softmax(dim=1) + 1e-4
    weights = weights.masked_fill(positive, 0)
    has_negative = ~positive.all(dim=1)
    weights = torch.where(has_negative[:, None], weights, torch.ones_like(weights))
    # What torch.multinomial draws, without its look at the weights, for which a GPU is waited for.
    return (weights / torch.empty_like(weights).exponential_()).argmax(dim=1), has_negative
