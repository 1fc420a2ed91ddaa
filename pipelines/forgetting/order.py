"""The order in which `pairmill forget` rewrites artifacts, from what each stage declares."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from stages.base.contract import Stage


def forget_order(stages: Sequence[type[Stage[Any]]]) -> list[type[Stage[Any]]]:
    """The stages that hold samples, each after those it names in `forget_after` and before those in `forget_before`;
    otherwise in the order given.

    Raises ValueError for a name that is none of these stages, and for declarations that contradict one another.
    """
    holding = {stage.name: stage for stage in stages if stage.holds_samples}
    before: dict[str, set[str]] = {name: set() for name in holding}
    for stage in holding.values():
        for key in ("forget_before", "forget_after"):
            for other in getattr(stage, key):
                if other not in holding:
                    raise ValueError(f"stage {stage.name}: {key} names {other!r}, which is no stage that holds samples")
                first, second = (stage.name, other) if key == "forget_before" else (other, stage.name)
                before[second].add(first)
    sorter = TopologicalSorter(before)
    try:
        sorter.prepare()
    except CycleError as error:
        raise ValueError(f"forget_before and forget_after form a cycle: {' → '.join(error.args[1])}") from None
    ordered: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=list(holding).index)
        ordered += ready
        sorter.done(*ready)
    return [holding[name] for name in ordered]
