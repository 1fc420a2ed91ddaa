"""What a benchmark asks of a model: one example per text to be written."""

from __future__ import annotations

from dataclasses import dataclass

from stages.evaluate.formats.problems import Id


@dataclass(frozen=True)
class Example:
    """One text to be written about one image."""

    id: Id
    """The question's id, or the image's where there is no question."""
    image_id: Id
    file_name: str
    """The image's file name as the benchmark lists it; empty where it does not."""
    question: str
    """Empty for captions."""
