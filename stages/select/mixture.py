"""Computes the mixture: how many pairs of each source are kept, and how often an epoch of training shows each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction as Exact
from math import ceil, floor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.base.contract import UserError
from stages.select.config import Portion

_KEY = "selection.mixture"


def epoch_samples(kept: Sequence[int], sources: Sequence[str], mixture: Mapping[str, Portion]) -> list[int]:
    """Samples per source in an epoch: the largest numbers with the given shares.

    `kept` is the number of pairs per source. The total is the minimum of kept x epochs / share over the sources with a
    share; the others together fill the rest of 1 like a single source. Rounded down. Raises UserError for a source that
    the mixture names and the run lacks, and for one that the mixture should name and does not.
    """
    for name in mixture:
        if name not in sources:
            raise UserError(f"{_KEY}.{name}: no such source in this run (sources: {', '.join(sources)}); take it out")
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


def _shares(kept: Sequence[int], sources: Sequence[str], mixture: Mapping[str, Portion]) -> dict[str, Exact]:
    weights = {name: Exact(str(part.weight)) for name, part in mixture.items() if part.weight is not None}
    if not weights:
        return {name: Exact(str(part.share)) for name, part in mixture.items() if part.share is not None}
    for number, name in enumerate(sources):
        if name not in weights and kept[number]:
            raise UserError(f"{_KEY}: {name} has no weight and others have one; give it one too (0 leaves it out)")
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def repeats(uids: pa.Array, times: float, number: int) -> NDArray[np.int16]:
    """Number of times that an epoch shows each pair of a source, int16 [pairs]; 0 for those that are left out.

    `uids` are sorted. Pairs with the smallest uids are taken, a random sample since uids are hashes, until `number`
    samples are shown at `times` per pair. If `times` is not an integer, pairs with the smallest second half of their
    uid are shown once more: that half is independent of the first, and so of which pairs are left out.
    """
    result = np.zeros(len(uids), dtype=np.int16)
    each = Exact(str(times))
    number = min(number, floor(each * len(uids)))
    if each < 1:
        result[:number] = 1
        return result
    count = min(ceil(number / each), number // int(each))
    result[:count] = int(each)
    once_more = number - count * int(each)
    if once_more > 0:
        half = pc.utf8_slice_codeunits(uids[:count], 16, 32)
        result[pc.sort_indices(half).to_numpy()[:once_more]] += 1
    return result
