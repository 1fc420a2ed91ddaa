"""Configuration of a demonstration's world."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.base.contract import StageConfig


class WorldConfig(StageConfig):
    """`conf/world/*.yaml`."""

    kind: str = "demo"
    """Which world: a name of the entry-point group `pairmill.worlds`."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides which image goes into which list, and the wording of captions."""
    train_images: Annotated[int, Field(ge=40, le=4000)] = 4000
    """Images of shapes to train on; faults and photographs come on top."""
    test_images: Annotated[int, Field(ge=8, le=1000)] = 1000
    """Images of shapes the benchmarks ask about."""
    corpus_captions: Annotated[int, Field(ge=0, le=616_767)] = 616_767
    """Captions of COCO 2014 in the text corpus, from the first on."""
