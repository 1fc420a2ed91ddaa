"""Settings of the `signals` stage: which families measure, and the few that can be set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.base.contract import NotFingerprinted, StageConfig


class TextCoverageConfig(StageConfig):
    """`signals.text_coverage`."""

    side: Annotated[int, Field(ge=64, le=2048)] = 480
    """Pixels of the longer side at which writing is looked for: more finds smaller writing and costs its square."""


class FacesConfig(StageConfig):
    """`signals.faces`."""

    side: Annotated[int, Field(ge=64, le=2048)] = 480
    """Pixels of the longer side at which faces are looked for: more finds smaller ones and costs its square."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Score above which a face counts (0.5 and 480 px: docs/signals.md shows what they find)."""


class ClipConfig(StageConfig):
    """`signals.clip`."""

    model: Annotated[str | None, NotFingerprinted] = None
    """Folder of a CLIP model in Hugging Face format: weights, image processor, tokenizer. Its contents count, not
    where it lies. Naming one adds the family `clip`."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the network: fp32 agrees between machines to the digits kept; bf16 is for GPUs and does not."""


class SignalsConfig(StageConfig):
    """The root key `signals`. What is measured is fingerprinted, in `measured`; how it was asked for is not."""

    families: Annotated[tuple[str, ...], NotFingerprinted, Field(min_length=1)] = ("default",)
    """Families that measure. `default` stands for all that need nothing from the user, `cheap` for those of them
    without a network over pixels; other packages add names by the entry-point group `pairmill.signals`."""
    text_coverage: Annotated[TextCoverageConfig, NotFingerprinted] = TextCoverageConfig()
    """Settings of the family of that name."""
    faces: Annotated[FacesConfig, NotFingerprinted] = FacesConfig()
    """Settings of the family of that name."""
    clip: Annotated[ClipConfig, NotFingerprinted] = ClipConfig()
    """Settings of the family of that name."""
    options: Annotated[dict[str, dict[str, Any]], NotFingerprinted] = {}
    """Settings of families from other packages, by name; each family's own schema checks them."""
    gpus: Annotated[float, NotFingerprinted, Field(ge=0, le=8)] = 0.5
    """GPUs that each worker takes, where there are any and a family can use one. Less than 1 lets several workers
    decode for one GPU."""
    measured: dict[str, dict[str, Any]] = {}
    """Family -> its version and what its settings determine, in the order of the columns. Filled in from the above,
    whatever is written here."""

    @model_validator(mode="after")
    def _resolve(self) -> SignalsConfig:
        from stages.signals import registry

        # Frozen for everyone else; a default cannot depend on other fields.
        object.__setattr__(self, "measured", registry.describe(self))
        return self

    def external_files(self) -> list[str]:
        """Folders outside the workspace whose contents the measurements depend on."""
        return [self.clip.model] if self.clip.model and "clip" in self.measured else []
