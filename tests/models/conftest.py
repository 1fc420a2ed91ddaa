"""Models small enough for unit tests, built from the very YAML that users choose, and batches to feed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from models import registry
from models.common.batch import Batch
from models.common.config import ModelConfig

CONF = Path(__file__).parents[2] / "conf" / "model"
SMALL = {"vocabulary": 60}


def read(name: str, **changes: Any) -> ModelConfig:
    """The config of conf/model/<name>.yaml with top-level changes."""
    fields = {**yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")), **changes}
    return registry.model_config(fields)


@pytest.fixture
def config() -> Callable[..., ModelConfig]:
    return read


@pytest.fixture(params=["blip2_tiny", "florence2_tiny"])
def either(request: pytest.FixtureRequest) -> ModelConfig:
    """Both tiny models in turn, with a vocabulary for quick tests."""
    return read(request.param, **SMALL)


@pytest.fixture
def batch() -> Batch:
    """Five texts of different lengths about three images; two texts share the first image."""
    generator = torch.Generator().manual_seed(3)
    targets = [[7, 8, 2], [9, 2], [10, 11, 12, 2], [13, 2], [14, 15, 16, 2]]
    prompts = [[20], [21, 22, 23], [24, 25], [26], [27, 28]]

    def padded(rows: list[list[int]], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(map(len, rows))
        gaps = [[0] * (longest - len(row)) for row in rows]
        ids = [gap + row if left else row + gap for gap, row in zip(gaps, rows, strict=True)]
        ids_tensor = torch.tensor(ids)
        return ids_tensor, (ids_tensor != 0).long()

    prompt_ids, prompt_mask = padded(prompts, left=True)
    target_ids, target_mask = padded(targets, left=False)
    return Batch(
        pixels=torch.randn(3, 3, 64, 64, generator=generator),
        image_index=torch.tensor([0, 0, 1, 2, 2]),
        image_id=torch.tensor([70, 70, 71, 72, 72]),
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        target_ids=target_ids,
        target_mask=target_mask,
    )
