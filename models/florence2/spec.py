"""What Florence-2 registers: see `models/common/spec.py`."""

from __future__ import annotations

from models.common.config import TextSettings
from models.common.spec import ModelSpec, Objective
from models.florence2.config import Florence2Config, MaskedAutoencodingSettings
from models.florence2.cost import record
from models.florence2.parameter_count import count_parameters


def _longest_target(config: Florence2Config, objective: str, prompt: int) -> int:
    positions = config.language.positions
    return positions if config.vision.patches + prompt <= positions else 0


SPEC = ModelSpec(
    config=Florence2Config,
    model="models.florence2.model:Florence2",
    objectives={
        "masked_autoencoding": Objective(
            "models.florence2.objectives:MaskedAutoencoding",
            MaskedAutoencodingSettings,
            parts=("vision", "reconstruction"),
            needs_texts=False,
        ),
        # Every task with an answer in words.
        "sequence_to_sequence": Objective(
            "models.common.objectives:TextGeneration",
            TextSettings,
            parts=("vision", "projector", "language"),
        ),
    },
    text_objective="sequence_to_sequence",
    count_parameters=count_parameters,
    record_cost=record,
    layers=lambda config: {
        "vision": config.vision.layers,
        "reconstruction": config.reconstruction.layers,
        "language": config.language.encoder_layers + config.language.decoder_layers,
    },
    split_heads=lambda config: {
        "model.vision.heads": config.vision.heads,
        "model.language.heads": config.language.heads,
        "model.reconstruction.heads": config.reconstruction.heads,
    },
    longest_target=_longest_target,
    initialise="models.florence2.initialise:stored_values",
    language_model=lambda config: "mbart",
)
