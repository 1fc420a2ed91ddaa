"""What a pretrained model is made from, besides its data."""

from __future__ import annotations

from models.common.released import weight_files
from models.registry import AnyModelConfig
from stages.base.contract import StageConfig
from stages.train.config import Precision, TrainConfig


class PretrainConfig(StageConfig):
    """`model` and `train` of the root config."""

    model: AnyModelConfig
    """The architecture and its sizes."""
    train: TrainConfig
    """The recipe."""
    precision: Precision = "fp32"
    """Arithmetic of training; the cluster's (`cluster.precision`)."""

    def weight_files(self) -> dict[str, list[str]]:
        """What the model starts from, by part: the config and weights of each folder, or the folder if it has none."""
        return {part: weight_files(folder) or [folder] for part, folder in self.model.initialise_from.folders.items()}
