"""Caps and mixture: how many pairs of each source are kept, and how often an epoch of training shows each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction as Exact
from functools import cache
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.select.config import Portion
from stages.select.decision import KEPT, Decision, uid_words
from stages.select.job import Passes
from stages.select.ranking import Ranked, Threshold, chosen, first_of_groups

_KEY = "selection.mixture"


def epoch_samples(kept: Sequence[int], sources: Sequence[str], mixture: Mapping[str, Portion]) -> list[int]:
    """Samples per source in an epoch: the largest numbers with the given shares.

    `kept` is the number of pairs per source. The total is the minimum of kept x epochs / share over the sources with a
    share; the others together fill the rest of 1 like a single source. Rounded down. Raises UserError for a source that
    the mixture names and the run lacks, and for one that the mixture should name and does not.
    """
    check_mixture(sources, mixture)
    epochs = [Exact(str(mixture[name].epochs)) if name in mixture else Exact(1) for name in sources]
    most = [count * times for count, times in zip(kept, epochs, strict=True)]
    shares = _shares(kept, sources, mixture)
    if not shares:
        return [floor(number) for number in most]
    rest = [number for number, name in enumerate(sources) if name not in shares]
    left = 1 - sum(shares.values())
    together = sum((most[number] for number in rest), Exact(0))
    if together and not left:
        name = next(sources[number] for number in rest if kept[number])
        raise UserError(
            f"{_KEY}: the other sources' shares add up to 1, which leaves nothing for {name}; give it a share too "
            "(0 leaves it out)"
        )
    totals = [together / left] if together and left else []
    for name, share in shares.items():
        if share:
            if not kept[sources.index(name)]:
                raise UserError(
                    f"{_KEY}.{name}: its share is {float(share):.3g}, but none of its pairs are kept; relax the rules "
                    "or take it out"
                )
            totals.append(most[sources.index(name)] / share)
    total = min(totals, default=Exact(0))
    scale = total * left / together if together else Exact(0)
    return [
        floor(total * shares[name] if name in shares else most[number] * scale) for number, name in enumerate(sources)
    ]


def check_mixture(sources: Sequence[str], mixture: Mapping[str, Portion]) -> None:
    """Raise UserError for a source that the mixture names and the run lacks."""
    for name in mixture:
        if name not in sources:
            raise UserError(f"{_KEY}.{name}: no such source in this run (sources: {', '.join(sources)}); take it out")


def _shares(kept: Sequence[int], sources: Sequence[str], mixture: Mapping[str, Portion]) -> dict[str, Exact]:
    weights = {name: Exact(str(part.weight)) for name, part in mixture.items() if part.weight is not None}
    if not weights:
        return {name: Exact(str(part.share)) for name, part in mixture.items() if part.share is not None}
    for number, name in enumerate(sources):
        if name not in weights and kept[number]:
            raise UserError(f"{_KEY}: {name} has no weight and others have one; give it one too (0 leaves it out)")
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def apply_caps_and_mixture(passes: Passes) -> None:
    """Apply caps, then the mixture to what they leave, and set how often an epoch shows each pair."""
    selection = passes.job.config.selection
    names = passes.job.index.sources
    kept = np.sum([np.zeros(len(names), dtype=np.int64), *passes.read(_kept)], axis=0).tolist()
    capped = [min(count, selection.max_pairs.get(name, count)) for name, count in zip(names, kept, strict=True)]
    caps = {n: most for n, most in enumerate(capped) if most < kept[n]}
    numbers = epoch_samples(capped, names, selection.mixture)
    plans = [
        shown(selection.mixture.get(name, Portion()).epochs, number, count)
        for name, number, count in zip(names, numbers, capped, strict=True)
    ]
    taken = {n: plan.pairs for n, plan in enumerate(plans) if plan.pairs < kept[n]}
    again = {n: plan.once_more for n, plan in enumerate(plans) if plan.once_more}
    cap, take = (_first(passes, sources, None) for sources in (caps, taken))
    once_more = _first(passes, again, take)
    passes.change(_set_repeats, [plan.each for plan in plans], cap, take, once_more)


@dataclass(frozen=True)
class Shown:
    """How an epoch shows a source's kept pairs, those with the smallest uids first."""

    pairs: int
    """Number of pairs that are shown at all."""
    each: int
    """How often each of them is."""
    once_more: int
    """How many of them are shown once more."""


def shown(epochs: float, number: int, kept: int) -> Shown:
    """The plan for `kept` pairs, of which an epoch shows `number` samples, each pair `epochs` times.

    If `epochs` is not an integer, some pairs are shown once more: those with the smallest second half of their uid,
    which is independent of the first, and so of which pairs are left out.
    """
    each = Exact(str(epochs))
    number = min(number, floor(each * kept))
    if each < 1:
        return Shown(number, 1, 0)
    pairs = min(ceil(number / each), number // int(each))
    return Shown(pairs, int(each), min(pairs, number - pairs * int(each)))


def _kept(decision: Decision) -> NDArray[np.int64]:
    return np.bincount(decision.source[decision.code == KEPT], minlength=len(decision.index.sources))


def _first(passes: Passes, numbers: Mapping[int, int], among: Mapping[int, Threshold] | None) -> dict[int, Threshold]:
    """Source -> the last of its first kept pairs, so many as `numbers` says: by uid, or, among those chosen before, by
    the second half of the uid."""
    if not numbers:
        return {}
    return first_of_groups(passes, _by_uid, (sorted(numbers), among), lambda source, _: numbers[source])


def _by_uid(decision: Decision, sources: Sequence[int], among: Mapping[int, Threshold] | None) -> Ranked:
    rows = np.flatnonzero((decision.code == KEPT) & np.isin(decision.source, sources))
    words = cache(lambda: uid_words(decision.pairs["uid"]))
    first, second = (lambda: words()[0][rows]), (lambda: words()[1][rows])
    ranked = Ranked(rows, decision.source[rows], (first, second))
    if among is None:
        return ranked
    # A source without a threshold is chosen whole.
    left = ranked.rows[chosen(ranked, {source: among.get(source, True) for source in sources})]
    return Ranked(left, decision.source[left], (lambda: words()[1][left], lambda: words()[0][left]))


def _set_repeats(
    decision: Decision,
    each: Sequence[int],
    cap: Mapping[int, Threshold],
    take: Mapping[int, Threshold],
    once_more: Mapping[int, Threshold],
) -> None:
    # Both are found before anything is dropped: they are about the same pairs.
    more = _by_uid(decision, sorted(once_more), take)
    again = more.rows[chosen(more, once_more)]
    beyond = {}
    for reason, thresholds in (("cap", cap), ("mixture", take)):
        ranked = _by_uid(decision, sorted(thresholds), None)
        beyond[reason] = ranked.rows[~chosen(ranked, thresholds)]
    for reason, rows in beyond.items():
        decision.drop_pairs(rows[decision.code[rows] == KEPT], reason)
    kept = decision.code == KEPT
    decision.repeats = np.where(kept, np.array([*each, 0], dtype=np.int16)[decision.source], 0).astype(np.int16)
    decision.repeats[again] += 1
