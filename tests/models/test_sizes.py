"""Every configuration's size: the published totals, and arithmetic equal to the modules themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from models import registry, size

ALL = ["blip2_tiny", "blip2_xl", "florence2_tiny", "florence2_xl"]


@pytest.mark.parametrize("name", ALL)
def test_arithmetic_counts_what_the_modules_hold(name: str, config: Callable[..., Any]) -> None:
    counted = registry.parameters(config(name))
    assert size.count(config(name)) == counted["parts"]
    assert sum(counted["parts"].values()) == counted["total"]


@pytest.mark.parametrize("name", ["blip2_tiny", "florence2_tiny"])
def test_parts_cover_every_parameter_exactly_once(name: str, config: Callable[..., Any]) -> None:
    model = registry.build(config(name))
    in_parts = [p.data_ptr() for part in registry.parts(model).values() for p in set(part.parameters())]
    assert sorted(in_parts) == sorted(p.data_ptr() for p in model.parameters())


@pytest.mark.parametrize(("name", "billions", "tolerance"), [("blip2_xl", 35.0, 0.02), ("florence2_xl", 12.0, 0.03)])
def test_xl_models_have_their_published_size(
    name: str, billions: float, tolerance: float, config: Callable[..., Any]
) -> None:
    assert registry.parameters(config(name))["total"] / 1e9 == pytest.approx(billions, rel=tolerance)


def test_counting_needs_no_heavy_import() -> None:
    script = "import models.size, sys; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    root = Path(__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 512, "patch_size": 14}, "image_size 512 is not divisible by patch_size 14"),
        ({"width": 66}, "width 66 is not divisible by heads 4"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, int], message: str, config: Callable[..., Any]) -> None:
    vision = {**config("blip2_tiny").vision.model_dump(), **changes}
    with pytest.raises(ValidationError, match=message):
        config("blip2_tiny", vision=vision)


def test_florence2_needs_room_for_a_prompt(config: Callable[..., Any]) -> None:
    language = {**config("florence2_tiny").language.model_dump(), "positions": 16}
    with pytest.raises(ValidationError, match="leaves no room for a prompt"):
        config("florence2_tiny", language=language)
