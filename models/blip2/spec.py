"""What BLIP2-Adapter registers: see `models/common/spec.py`."""

from __future__ import annotations

from models.blip2.config import Blip2Config, RepresentationSettings
from models.blip2.cost import record
from models.blip2.parameter_count import count_parameters
from models.common.config import TextSettings
from models.common.spec import ModelSpec, Objective

SPEC = ModelSpec(
    config=Blip2Config,
    model="models.blip2.model:Blip2Adapter",
    objectives={
        "representation": Objective(
            "models.blip2.objectives:Representation",
            RepresentationSettings,
            parts=("vision", "qformer", "qformer_text", "heads"),
        ),
        # Stage 2 and fine-tuning, through the adapters or the projection.
        "language_modeling": Objective(
            "models.common.objectives:TextGeneration",
            TextSettings,
            parts=lambda config: ("vision", "qformer", config.bridge_part, "language"),
        ),
    },
    text_objective="language_modeling",
    count_parameters=count_parameters,
    record_cost=record,
    layers=lambda config: {
        "vision": config.vision.layers,
        "qformer": config.qformer.layers,
        "language": config.language.layers,
    },
    initialise="models.blip2.initialise:stored_values",
    stock="models.blip2.export:stock_values",
    language_model=lambda config: config.language.model_type,
)
