"""One small demonstration world for all tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """Sizes of a world that is built in a second or two."""
    return {"train_images": 60, "test_images": 20, "corpus_captions": 300}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, small: dict[str, Any]) -> Path:
    """Folder of the built world."""
    from stages.world.config import WorldConfig
    from stages.world.demo.world import DemoWorld

    out = tmp_path_factory.mktemp("world")
    DemoWorld().build(out, WorldConfig(**small))
    return out
