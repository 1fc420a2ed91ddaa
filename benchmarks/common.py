"""What all benchmarks share: runs of ours and of the peers taken in turns, medians, ratios with their spread, one JSON.

Every script states its inputs, calls :func:`compare` (or :func:`report` with figures it took itself) and thereby ends
with one JSON object on its last line: `name`, `ours`, `peers`, `ratios`, `inputs`, `machine`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Better = Literal["higher", "lower"]
Measure = Callable[[], float]


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(
    name: str,
    ours: Measure,
    peers: Mapping[str, Measure],
    repeats: int = 5,
    unit: str = "s",
    better: Better = "lower",
    inputs: Mapping[str, Any] | None = None,
    warmup: bool = False,
    finish: bool = True,
) -> dict[str, Any]:
    """Measure ours and each peer `repeats` times in turns, then :func:`report`; returns what was printed as JSON.

    Every callable does its work once and returns the figure, in `unit`: seconds (`better="lower"`) or a rate
    (`better="higher"`). The order changes from round to round, so that neither always runs on a warmer machine; with
    `warmup` one unmeasured round goes first. Progress goes to standard error.
    """
    runs: dict[str, Measure] = {"ours": ours, **peers}
    values: dict[str, list[float]] = {who: [] for who in runs}
    order = list(runs)
    for number in range(-1 if warmup else 0, repeats):
        shift = number % len(order)
        for who in order[shift:] + order[:shift]:
            value = runs[who]()
            if number >= 0:
                values[who].append(value)
            label = "warm-up" if number < 0 else f"round {number + 1}/{repeats}"
            print(f"{name}: {label}: {who}: {value:.4g} {unit}", file=sys.stderr, flush=True)
    mine = values.pop("ours")
    return report(name, mine, values, unit, better, inputs, finish)


def report(
    name: str,
    ours: Sequence[float],
    peers: Mapping[str, Sequence[float]],
    unit: str = "s",
    better: Better = "lower",
    inputs: Mapping[str, Any] | None = None,
    finish: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """Print inputs, a table of medians and ratios, and as the last line the JSON object; returns that object.

    A ratio above 1 means that ours is better. Ratios are taken round by round (runs next to each other shared the
    machine's mood), so `peers[x][i]` must belong to the same round as `ours[i]`. `more` is added to the JSON. With
    `finish=False` the JSON is not printed: a script with several tables ends with one object of its own.
    """
    ratios = {}
    for peer, values in peers.items():
        pairs = list(zip(ours, values, strict=True))
        ratios[peer] = _spread([a / b if better == "higher" else b / a for a, b in pairs])
    result: dict[str, Any] = {
        "name": name,
        "unit": unit,
        "better": better,
        "ours": _spread(ours),
        "peers": {peer: _spread(values) for peer, values in peers.items()},
        "ratios": ratios,
        "inputs": dict(inputs or {}),
        "machine": machine(),
        **more,
    }
    print(f"\n{name}, in {unit}: {better} is better; {len(ours)} rounds in turns")
    for key, value in result["inputs"].items():
        print(f"  {key}: {value}")
    print(f"  {'':24}{'median':>12}{'min':>12}{'max':>12}{'ours is better by':>34}")
    for who, spread in {"ours": result["ours"], **result["peers"]}.items():
        ratio = ratios.get(who)
        shown = f"{ratio['median']:.2f}x ({ratio['min']:.2f}..{ratio['max']:.2f})" if ratio else ""
        print(f"  {who:24}{spread['median']:12.4g}{spread['min']:12.4g}{spread['max']:12.4g}{shown:>34}")
    if finish:
        print(json.dumps(result), flush=True)
    return result


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code; no name of the machine."""
    return {"cpus": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": list(values)}
