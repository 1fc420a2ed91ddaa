"""What a pretrained model is made from, besides its data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.blip2.config import Blip2Config
from models.florence2.config import Florence2Config
from stages.base.contract import StageConfig
from stages.train.config import TrainConfig

ModelConfig = Annotated[Blip2Config | Florence2Config, Field(discriminator="architecture")]


class PretrainConfig(StageConfig):
    """`model` and `train` of the root config."""

    model: ModelConfig
    """The architecture and its sizes."""
    train: TrainConfig
    """The recipe."""
