"""Configuration of the `signals` stage: which families to measure, and their settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.base.contract import NotFingerprinted, StageConfig


class TextCoverageConfig(StageConfig):
    """`signals.text_coverage`."""

    side: Annotated[int, Field(ge=64, le=2048)] = 480
    """Longer side in pixels at which text is detected: a larger one detects smaller text, at quadratic cost."""


class FacesConfig(StageConfig):
    """`signals.faces`."""

    side: Annotated[int, Field(ge=64, le=2048)] = 480
    """Longer side in pixels at which faces are detected: a larger one detects smaller faces, at quadratic cost."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Score above which a face counts (docs/signals.md shows what 0.5 and 480 px detect)."""


class ClipConfig(StageConfig):
    """`signals.clip`."""

    model: Annotated[str | None, NotFingerprinted] = None
    """Folder of a CLIP model in Hugging Face format: weights, image processor, tokenizer. Its contents are
    fingerprinted, its path is not. Naming one adds the family `clip`."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the network: with fp32 machines agree to the stored digits, with bf16 (for GPUs) not."""


class SignalsConfig(StageConfig):
    """The root key `signals`. Only `measured`, which is derived from the other keys, is fingerprinted."""

    families: Annotated[tuple[str, ...], NotFingerprinted, Field(min_length=1)] = ("default",)
    """Families to measure. `default` stands for all that need nothing from the user, `cheap` for those of them without
    a network over pixels; other packages add names in the entry-point group `pairmill.signals`."""
    text_coverage: Annotated[TextCoverageConfig, NotFingerprinted] = TextCoverageConfig()
    """Settings of the family of that name."""
    faces: Annotated[FacesConfig, NotFingerprinted] = FacesConfig()
    """Settings of the family of that name."""
    clip: Annotated[ClipConfig, NotFingerprinted] = ClipConfig()
    """Settings of the family of that name."""
    options: Annotated[dict[str, dict[str, Any]], NotFingerprinted] = {}
    """Settings of families from other packages, by name, validated by each family's own schema."""
    gpus: Annotated[float, NotFingerprinted, Field(ge=0, le=8)] = 0.5
    """GPUs per worker, if there are any and a family can use one. With less than 1, several workers decode for one
    GPU."""
    measured: dict[str, dict[str, Any]] = {}
    """Family -> its version and fingerprinted settings, in the order of the columns. Derived from the keys above; a
    value given here is ignored."""

    @model_validator(mode="after")
    def _resolve(self) -> SignalsConfig:
        from stages.signals import registry

        # The model is frozen, and a default cannot depend on other fields.
        object.__setattr__(self, "measured", registry.measured_settings(self))
        return self

    def external_files(self) -> list[str]:
        """Folders outside the workspace whose contents the measurements depend on."""
        return [self.clip.model] if self.clip.model and "clip" in self.measured else []
