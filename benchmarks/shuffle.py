"""How far the loader's order is from a uniform permutation, and what it costs to read, beside webdataset's shuffle.

Inputs: `--samples` numbers in ascending order, the worst case: data sorted by what a batch should mix. (Our own shards
are permuted when written: *ours, own shards* judges the same batches by values dealt to the numbers at random.)
Measured over epoch 0 with seeds 0 to `--rounds` - 1:

- *ks*: Kolmogorov-Smirnov distance of a global batch's numbers from the uniform distribution, mean over batches;
- *tv*: total variation between a global batch's composition by 100 equal classes and the data's, mean over batches;
- *rank ks*: as *ks*, of the part of a global batch that one of the ranks takes;
- *neighbours*: correlation of each sample's number with that of the next one its rank takes;
- *displacement*: mean distance of a sample's place from its number, over the N / 3 of a uniform permutation;
- *pieces*: different 1 MB pieces of the data that a rank touches while it takes as many samples as its stripes shuffle
  together (`block * window * stripes / ranks`), over the fewest that hold so many; a sample is `--sample-kb`;
- *read*: bytes read over bytes used in an epoch, where a rank reads 1 MB pieces and keeps the `--cache-mb` of them that
  it used last. For webdataset both are 1 by construction: it reads shards from end to end and keeps its buffer in
  memory (10,000 samples of 100 kB: 1 GB per reader).

Ours: `stages.train.data.shuffle.Shuffle`, batches split over ranks by `stages.train.data.sampler`. Peers: a uniform
permutation (numpy), and webdataset's own shuffle stage, one reader per rank, over its share of shards of `--shard`
samples in a random order, with buffers of 1,000 and 10,000 samples (`--peer-python` names a Python that has webdataset;
without it these are left out). A uniform permutation's own *ks*, *tv* and *rank ks* are what chance alone gives."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
from common import report  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from stages.train.data.shuffle import BLOCK, STRIPES, WINDOW, Shuffle  # noqa: E402

CLASSES = 100
_WRITTEN = "ours, own shards"
Numbers = NDArray[np.int64]

_WEBDATASET = """
import random, sys, numpy as np, webdataset
samples, shard, readers, buffer, seed, out = *map(int, sys.argv[1:6]), sys.argv[6]
shards = list(range(-(-samples // shard)))
random.Random(seed).shuffle(shards)
def numbers(own):
    for s in own:
        yield from range(s * shard, min((s + 1) * shard, samples))
found = []
for reader in range(readers):
    mixed = webdataset.shuffle(buffer, initial=buffer, rng=random.Random(1000 * seed + reader))
    found.append(np.fromiter(mixed(numbers(shards[reader::readers])), np.int64))
np.savez(out, *found)
"""


def main() -> int:
    """Measure every order, print the tables, end with one JSON object."""
    args = _arguments()
    orders: dict[str, Callable[[int], Numbers]] = {"ours": partial(_ours, args), "uniform": partial(_uniform, args)}
    if args.peer_python:
        for buffer in (1000, 10_000):
            orders[f"webdataset {buffer}"] = partial(_webdataset, args, buffer)
    results: dict[str, list[dict[str, float]]] = {who: [] for who in orders}
    names = list(orders)
    for seed in range(args.rounds):
        shift = seed % len(names)
        for who in names[shift:] + names[:shift]:
            # webdataset reads its shards from end to end, and keeps its buffer's samples in memory instead.
            read = {"pieces": 1.0, "read": 1.0} if who.startswith("webdataset") else {}
            batches = orders[who](seed)
            results[who].append(_measured(batches, batches, args) | read)
            if who == "ours":
                mixed = np.random.default_rng(99).permutation(args.samples)
                results.setdefault(_WRITTEN, []).append(_measured(batches, mixed[batches], args))
            print(f"round {seed + 1}/{args.rounds}: {who}: {results[who][-1]}", file=sys.stderr, flush=True)
    table = {who: {key: median(r[key] for r in rounds) for key in rounds[0]} for who, rounds in results.items()}
    _print(table)
    ours, _ = results.pop("ours"), results.pop(_WRITTEN)
    inputs = {key: value for key, value in vars(args).items() if key != "peer_python"}
    summary = report(
        "shuffle",
        [one["ks"] for one in ours],
        {who: [one["ks"] for one in rounds] for who, rounds in results.items()},
        unit="ks of a batch",
        inputs=inputs | {"block": BLOCK, "window": WINDOW, "stripes": STRIPES},
        finish=False,
    )
    print(json.dumps(summary | {"medians": table}), flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1024, help="global batch (default 1024)")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--shard", type=int, default=10_000, help="samples in a shard, for webdataset (default 10000)")
    parser.add_argument("--sample-kb", type=int, default=100)
    parser.add_argument("--cache-mb", type=int, default=2048, help="what a rank keeps in memory (default 2048)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", help="a Python interpreter that has webdataset")
    return parser.parse_args()


def _ours(args: argparse.Namespace, seed: int) -> Numbers:
    """[batches, batch], each batch's ranks one after the other."""
    order = Shuffle(args.samples, seed)
    places = np.arange(args.samples - args.samples % args.batch).reshape(-1, args.batch)
    results = [order(own)[1][np.argsort(order.stripe(own), kind="stable")] for own in places]
    return np.stack(results)


def _uniform(args: argparse.Namespace, seed: int) -> Numbers:
    whole = np.random.default_rng(seed).permutation(args.samples)
    return whole[: args.samples - args.samples % args.batch].reshape(-1, args.batch)


def _webdataset(args: argparse.Namespace, buffer: int, seed: int) -> Numbers:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "order.npz")
        arguments = [args.samples, args.shard, args.ranks, buffer, seed, out]
        subprocess.run([args.peer_python, "-c", _WEBDATASET, *map(str, arguments)], check=True)
        with np.load(out) as file:
            readers = [file[name] for name in file.files]
    own = args.batch // args.ranks
    batches = min(map(len, readers)) // own
    return np.concatenate([reader[: batches * own].reshape(batches, own) for reader in readers], axis=1)


def _measured(batches: Numbers, values: Numbers, args: argparse.Namespace) -> dict[str, float]:
    """Figures of batches of samples by number; `values` are what their sameness is judged by."""
    size = args.samples
    own = args.batch // args.ranks
    ranks, judged = (part[:, : own * args.ranks].reshape(len(part), args.ranks, own) for part in (batches, values))
    row = judged.transpose(1, 0, 2).reshape(args.ranks, -1).astype(np.float64)
    places = np.repeat(np.arange(len(batches)) * args.batch + args.batch / 2, args.batch)
    shares = np.stack([np.bincount(row, minlength=CLASSES) for row in values * CLASSES // size]) / args.batch
    first = ranks[:, 0].reshape(-1)
    parts = max(1, len(first) // (BLOCK * WINDOW * STRIPES // args.ranks))
    return {
        "ks": _ks(values / size),
        "tv": float(np.abs(shares - 1 / CLASSES).sum(axis=1).mean() / 2),
        "rank ks": _ks(judged.reshape(-1, own) / size),
        "neighbours": float(np.corrcoef(row[:, :-1].ravel(), row[:, 1:].ravel())[0, 1]),
        "displacement": float(np.abs(places - values.reshape(-1)).mean() / (size / 3)),
        "pieces": float(np.mean([_spread(part, args.sample_kb) for part in np.array_split(first, parts)])),
        "read": _amplification(first, args.sample_kb, args.cache_mb),
    }


def _ks(rows: NDArray[np.float64]) -> float:
    """Mean over rows of the largest distance between a row's distribution function and the uniform one."""
    ordered = np.sort(rows, axis=1)
    steps = np.arange(rows.shape[1] + 1) / rows.shape[1]
    over, under = (steps[1:] - ordered).max(axis=1), (ordered - steps[:-1]).max(axis=1)
    return float(np.maximum(over, under).mean())


def _spread(numbers: Numbers, sample_kb: int) -> float:
    """Different 1 MB pieces that samples lie in, over the fewest possible."""
    return len(np.unique(numbers * sample_kb // 1024)) / (len(numbers) * sample_kb / 1024)


def _amplification(numbers: Numbers, sample_kb: int, cache_mb: int) -> float:
    """MB read over MB used, through a least-recently-used cache of 1 MB pieces."""
    pieces = numbers * sample_kb // 1024
    kept: OrderedDict[int, None] = OrderedDict()
    missed = 0
    for piece in pieces.tolist():
        if piece in kept:
            kept.move_to_end(piece)
            continue
        missed += 1
        kept[piece] = None
        if len(kept) > cache_mb:
            kept.popitem(last=False)
    return missed / (len(numbers) * sample_kb / 1024)


def _print(table: dict[str, dict[str, float]]) -> None:
    columns = list(next(iter(table.values())))
    print(f"{'median of the rounds':22}" + "".join(f"{name:>14}" for name in columns))
    for who, figures in table.items():
        print(f"{who:22}" + "".join(f"{figures[name]:14.4g}" for name in columns))


if __name__ == "__main__":
    sys.exit(main())
