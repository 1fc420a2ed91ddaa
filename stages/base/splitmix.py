"""SplitMix64: 64 bits that look random for each key (Steele, Lea, Flood: "Fast splittable pseudorandom number
generators", OOPSLA 2014)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: What the generator's state grows by at each step.
GAMMA = 0x9E3779B97F4A7C15


def mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The first number that the generator draws from each state, uint64 [n]; no two keys have the same."""
    z = keys + np.uint64(GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
