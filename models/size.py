"""Parameter counts without torch: the refusal of a model too large must not wait for heavy imports."""

from __future__ import annotations

from models.blip2 import size as blip2
from models.blip2.config import Blip2Config
from models.florence2 import size as florence2
from models.florence2.config import Florence2Config


def count(config: Blip2Config | Florence2Config) -> dict[str, int]:
    """Part -> parameters; their sum is the model's total. Equal to `models.registry.parameters`, but at once."""
    return blip2.count(config) if isinstance(config, Blip2Config) else florence2.count(config)
