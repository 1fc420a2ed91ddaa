"""Position embeddings of a vision transformer: their random start, and their resizing to another image size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init


def balance_positions(patches: nn.Conv2d, positions: Tensor) -> None:
    """Initialise at random so that a patch's position and its content weigh about the same.

    Deviations of (3 inputs)^-1/2 for the patch projection and width^-1/2 for positions [..., width], as in CLIP's
    first code. `transformers` gives both the same, and a flat patch's projection, a sum of hundreds of equal pixels,
    then outweighs its position: small models lose thousands of steps to that.
    """
    init.normal_(patches.weight, std=(3 * patches.weight[0].numel()) ** -0.5)
    init.normal_(positions, std=positions.shape[-1] ** -0.5)


def resize_positions(positions: Tensor, patches: int, *, class_token: bool = True) -> Tensor:
    """Stretch learned positions [tokens, width] over a square grid of ``patches``: [new tokens, width].

    Bicubic, the class token's (the first, if there is one) untouched: how ViT (Dosovitskiy et al. 2021, section 3.2)
    changes resolution.
    """
    first = int(class_token)
    if len(positions) == first + patches:
        return positions
    old, new = round((len(positions) - first) ** 0.5), round(patches**0.5)
    grid = positions[first:].float().T.reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    stretched = positions.new_empty(first + patches, positions.shape[1])
    stretched[:first] = positions[:first]
    stretched[first:] = grid.flatten(2).squeeze(0).T
    return stretched
