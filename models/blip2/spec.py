"""What BLIP2-Adapter registers: see `models/common/spec.py`."""

from __future__ import annotations

from models.blip2.config import Blip2Config, RepresentationSettings
from models.blip2.cost import record
from models.blip2.parameter_count import LIKE_LLAMA, count_parameters, is_like_llama
from models.common.config import TextSettings
from models.common.errors import UserError
from models.common.spec import ModelSpec, Objective


def _longest_target(config: Blip2Config, objective: str, prompt: int) -> int:
    if objective == "representation":
        return config.qformer.text_positions - 1  # bos stands before it
    image = config.qformer.queries if config.bridge == "prefix" else 0
    return config.language.positions - image - prompt  # bos is read, the last token is only written


def _split_heads(config: Blip2Config) -> dict[str, int]:
    heads = {"model.vision.heads": config.vision.heads, "model.language.heads": config.language.heads}
    shape = config.language.shape
    if shape is None:
        return heads
    if not is_like_llama(shape):
        raise UserError(
            f"tensor parallelism splits no decoder of family {shape['model_type']!r} (of these alone: "
            f"{', '.join(LIKE_LLAMA)}); divide its weights with train.zero.stage=3 instead"
        )
    keys = shape.get("num_key_value_heads") or config.language.heads
    return {**heads, "model.language.shape.num_key_value_heads": keys}


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
    split_heads=_split_heads,
    longest_target=_longest_target,
    initialise="models.blip2.initialise:stored_values",
    stock="models.blip2.export:stock_values",
    language_model=lambda config: config.language.model_type,
)
