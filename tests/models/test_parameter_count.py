"""Parameter counts: equal to those of the modules, and the published totals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from models import registry


@pytest.mark.parametrize("name", ["blip2_tiny", "blip2_smol", "blip2_xl", "florence2_tiny", "florence2_xl"])
def test_counts_equal_those_of_the_modules(name: str, config: Callable[..., Any]) -> None:
    model, _ = registry.construct(config(name, initialise_from={}))
    counted = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_parts().items()}
    assert registry.count_parameters(config(name, initialise_from={})) == counted


@pytest.mark.parametrize("name", ["blip2_tiny", "florence2_tiny"])
def test_parts_cover_every_parameter_exactly_once(name: str, config: Callable[..., Any]) -> None:
    model = registry.build(config(name))
    in_parts = [p.data_ptr() for part in model.named_parts().values() for p in set(part.parameters())]
    assert sorted(in_parts) == sorted(p.data_ptr() for p in model.parameters())


@pytest.mark.parametrize(("name", "billions", "tolerance"), [("blip2_xl", 35.0, 0.02), ("florence2_xl", 12.0, 0.03)])
def test_xl_models_have_their_published_size(
    name: str, billions: float, tolerance: float, config: Callable[..., Any]
) -> None:
    total = sum(registry.count_parameters(config(name)).values())
    assert total / 1e9 == pytest.approx(billions, rel=tolerance)
