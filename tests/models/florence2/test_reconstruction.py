"""Masked autoencoding: masked patches are not encoded, and only they are scored."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models import registry
from models.florence2.reconstruction import patches_of, reconstruction_loss


@pytest.fixture
def model(config: Any) -> Any:
    torch.manual_seed(2)
    return registry.build(config("florence2_tiny", vocabulary=60)).eval()


def test_patches_keep_their_pixels() -> None:
    pixels = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    patches = patches_of(pixels, 2)
    assert patches.shape == (2, 4, 12)
    torch.testing.assert_close(patches[0, 1].reshape(3, 2, 2), pixels[0, :, :2, 2:])


def test_hidden_patches_do_not_reach_the_encoder(model: Any) -> None:
    pixels = torch.randn(1, 3, 64, 64)
    patches = model.vision.embeddings.patch_embeddings.num_patches
    kept = torch.arange(patches)[None, : patches // 4]
    encoded = model.vision.encode(pixels, kept)
    assert encoded.shape[1] == 1 + patches // 4
    changed = pixels.clone()
    changed[:, :, -8:, -8:] += 3  # the last patch's corner
    torch.testing.assert_close(model.vision.encode(changed, kept), encoded)
    assert not torch.allclose(model.vision.encode(changed), model.vision.encode(pixels))


def test_keeping_every_patch_is_plain_encoding_and_the_order_is_undone(model: Any) -> None:
    pixels = torch.randn(2, 3, 64, 64)
    patches = model.vision.embeddings.patch_embeddings.num_patches
    order = torch.stack([torch.randperm(patches) for _ in range(2)])
    straight = torch.arange(patches).expand(2, -1)
    shuffled = model.reconstruction(model.vision.encode(pixels, order), order)
    plain = model.reconstruction(model.vision.encode(pixels), straight)
    torch.testing.assert_close(shuffled, plain, rtol=1e-4, atol=1e-5)


def test_only_hidden_patches_are_scored_against_normalised_pixels() -> None:
    pixels = torch.randn(1, 3, 4, 4) * 5 + 2
    hidden = torch.tensor([[True, False, False, True]])
    target = patches_of(pixels, 2)
    normalised = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    wrong_where_visible = normalised.clone()
    wrong_where_visible[:, 1:3] += 7
    assert reconstruction_loss(wrong_where_visible, pixels, hidden, 2, True).item() == pytest.approx(0, abs=1e-9)
    assert reconstruction_loss(normalised + 1, pixels, hidden, 2, True).item() == pytest.approx(1)
    assert reconstruction_loss(target, pixels, hidden, 2, False).item() == pytest.approx(0, abs=1e-9)


def test_three_quarters_are_hidden_and_the_seed_says_which(config: Any, batch: Any) -> None:
    model = registry.build(config("florence2_tiny", vocabulary=60))
    objective = registry.objective(model, "masked_autoencoding")
    encoded: list[torch.Tensor] = []
    encode = model.vision.encode
    model.vision.encode = lambda pixels, kept: encoded.append(kept) or encode(pixels, kept)
    for _ in range(2):
        torch.manual_seed(6)
        objective(batch)
    patches = model.vision.embeddings.patch_embeddings.num_patches
    assert encoded[0].shape[1] == patches // 4
    assert torch.equal(encoded[0], encoded[1])


@pytest.mark.parametrize(("ratio", "hidden"), [(0.01, 1), (0.99, 15)])
def test_some_patch_is_hidden_and_some_is_seen_at_any_ratio(ratio: float, hidden: int, config: Any, batch: Any) -> None:
    model: Any = registry.build(config("florence2_tiny", vocabulary=60))
    objective = registry.objective(model, "masked_autoencoding", {"mask_ratio": ratio})
    encoded: list[Any] = []
    encode = model.vision.encode

    def noted(pixels: Any, kept: Any) -> Any:
        encoded.append(kept)
        return encode(pixels, kept)

    model.vision.encode = noted
    assert objective(batch)["loss"].isfinite()
    assert encoded[0].shape[1] == 16 - hidden
