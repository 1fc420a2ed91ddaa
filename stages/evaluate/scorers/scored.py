"""What every scorer returns: the metrics as functions of sums, and the figures under the names that are reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.evaluate.metrics.additive import Additive
from stages.formats.problems import Id


@dataclass(frozen=True)
class Scored:
    """A set of predictions, scored."""

    metrics: list[Additive]
    """All over the same samples."""
    units: list[Id]
    """Each sample's unit of the bootstrap: its image, or its own id where no image is known."""
    per_sample: dict[str, list[Any]]
    """Columns with each sample's scores."""
    protocol: dict[str, Any]
    """How the scores were computed."""
    counts: dict[str, int] = field(default_factory=dict)
    """Figures that are whole numbers, such as hits."""
    unavailable: dict[str, str] = field(default_factory=dict)
    """Score -> why it could not be computed."""
    domains: dict[str, np.ndarray] = field(default_factory=dict)
    """Domain -> int64 indices of its samples, for benchmarks that report by domain."""

    def total(self, rows: np.ndarray | None = None) -> dict[str, float]:
        """Score -> value over all samples, or over some; those of groups are named `<group's kind>.<group>`."""
        return {name: value for metric in self.metrics for name, value in metric.total(rows).items()}

    def figures(self) -> dict[str, Any]:
        """The scores as they are reported: those of groups nested (`per_answer_type: {"yes/no": ...}`), and counts."""
        found: dict[str, Any] = {}
        for name, value in self.total().items():
            kind, has_group, group = name.partition(".")
            if has_group:
                found.setdefault(kind, {})[group] = value
            else:
                found[name] = value
        return {**found, **self.counts}
