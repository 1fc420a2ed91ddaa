"""What the phases of a run see of its data: all samples, or those with a text; and where in their order each begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.base.contract import UserError
from stages.train.config import PhaseConfig
from stages.train.data.dataset import Dataset


def samples_by_phase(dataset: Dataset, needs_texts: Sequence[bool]) -> list[int]:
    """Samples that an epoch of each phase shows; `needs_texts`: of every phase, whether it sees no others."""
    captioned = dataset.with_texts() if any(needs_texts) else None
    return [len(captioned) if needed and captioned is not None else len(dataset) for needed in needs_texts]


def first_data_step(dataset: Dataset, needs_texts: Sequence[bool], phase: int, steps: Sequence[int]) -> int:
    """The step, in the order of the samples that a phase sees, with which it begins; `steps`: those of every phase.

    Phases that see the same samples go on in one order, so that two of half an epoch each show every sample once. A
    phase that sees others does not count: it has an order of its own.
    """
    before = range(phase)
    return sum(steps[n] for n in before if not dataset.image_only or needs_texts[n] == needs_texts[phase])


def check_texts(
    phases: Sequence[PhaseConfig],
    needs_texts: Sequence[bool],
    dataset: Mapping[str, Any],
    mixture: Mapping[str, float] | None,
) -> None:
    """Raise UserError where a phase that needs texts would see no sample; `dataset` is the shards' `dataset.json`."""
    image_only = dataset.get("image_only", {})
    if not image_only or not any(needs_texts):
        return
    number = list(needs_texts).index(True)
    phase = f"train.phases[{number}].objective={phases[number].objective}"
    listed = ", ".join(image_only)
    if sum(image_only.values()) == dataset["samples"]:
        raise UserError(
            f"{phase} needs texts, and all {dataset['samples']:,} samples are images without one (of {listed}): add a "
            "source with captions, or train objectives that need none only"
        )
    if mixture is not None and not any(weight for name, weight in mixture.items() if name not in image_only):
        raise UserError(
            f"{phase} needs texts, and train.mixture gives a weight to image-only sources only ({listed}): give one to "
            "a source with captions"
        )
