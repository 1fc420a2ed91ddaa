"""Near copies: how many are found and how many are wrong, and how fast the search is beside brute force and faiss.

Quality. Inputs: every photograph below `--photographs` (JPEG and PNG files, at any depth) and scikit-image's. Each is
edited in each way of `EDITS`. *Recall* is the share of the photographs whose edited version is found; *wrong* counts
pairs of different photographs, one edited, that are taken for one picture; *precision* is found / (found + wrong). Both
at every radius from 0 to 12, by the hash alone, with the thumbnails confirming it (2.0 grey levels or 0.07 of the
contrast, as `conf/selection/demo.yaml` has it; and looser bounds for photographs), by windows of the pictures
(`crops`), and by either of these (`either`: the hash up to 8 bits, confirmed, or windows up to the radius).

Speed. Inputs: `--rows` random 64-bit hashes of which a fifth are others with a few bits flipped, and twenty clusters
of 200. Ours is `stages.index.hamming` (plan and search) in one thread; the peers find the same pairs in one thread: all
pairs compared by numpy, faiss's `IndexBinaryMultiHash` and `IndexBinaryFlat` where `--faiss-python` names a Python that
has faiss-cpu; and on `--imagehash-rows` of the hashes, ImageHash objects subtracted pair by pair. All must find equally
many pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
from common import compare, seconds  # noqa: E402
from near_edits import EDITS, RULES, Quality, photographs  # noqa: E402

from stages.index.windows import textured  # noqa: E402

RADII = range(13)


def main() -> int:
    """Measure quality and speed, print both, end with one JSON object."""
    args = _arguments()
    result: dict[str, Any] = {"name": "near_duplicates"}
    if not args.no_quality:
        result["quality"] = _quality(args)
    if not args.no_speed:
        result |= _speed(args)
    print(json.dumps(result), flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="folder of photographs besides scikit-image's")
    parser.add_argument("--rows", type=int, default=100_000, help="hashes searched (default 100000)")
    parser.add_argument("--imagehash-rows", type=int, default=2000, help="hashes for ImageHash (default 2000)")
    parser.add_argument("--radius", type=int, default=8, help="bits, of the speed test (default 8)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--faiss-python", help="a Python interpreter that has faiss-cpu")
    parser.add_argument("--no-brute-force", action="store_true", help="leave numpy's all pairs out (large --rows)")
    parser.add_argument("--no-quality", action="store_true")
    parser.add_argument("--no-speed", action="store_true")
    return parser.parse_args()


def _quality(args: argparse.Namespace) -> dict[str, Any]:
    pictures = photographs(args.photographs)
    print(f"near_duplicates, quality: {len(pictures)} photographs", flush=True)
    quality = Quality(pictures)
    result: dict[str, Any] = {"photographs": len(pictures), "edits": {}}
    for name, edit in EDITS.items():
        result["edits"][name] = quality.of(edit, RADII)
    result["texture"] = round(float(textured(quality.originals["patch"]).mean()), 4)
    print(f"textured enough for crops: {100 * result['texture']:.1f}%")
    for rule in (*RULES, "crops", "either"):
        print(f"\n{rule}: recall in % by radius; in brackets wrong pairs, where there are any")
        print(f"  {'':24}" + "".join(f"{radius:>11}" for radius in RADII))
        for name, by_rule in result["edits"].items():
            cells = [
                f"{100 * share:.1f}" + (f" ({wrong})" if wrong else "")
                for share, wrong in zip(by_rule[rule]["recall"], by_rule[rule]["wrong"], strict=True)
            ]
            print(f"  {name:24}" + "".join(f"{cell:>11}" for cell in cells))
    return result


def _speed(args: argparse.Namespace) -> dict[str, Any]:
    hashes = _hashes(args.rows)
    few = hashes[: args.imagehash_rows]
    counts: dict[str, int] = {}

    def run(who: str, work: Callable[[], int]) -> float:
        def counted() -> None:
            counts[who] = work()

        return seconds(counted)

    inputs = {"hashes": len(hashes), "radius": args.radius, "threads": 1}
    with tempfile.TemporaryDirectory(prefix="pairmill-near-") as folder:
        file = Path(folder) / "hashes.npy"
        np.save(file, hashes)
        peers: dict[str, Callable[[], float]] = {}
        if not args.no_brute_force:
            peers["numpy, all pairs"] = partial(run, "numpy", partial(_brute_force, hashes, args.radius))
        if args.faiss_python:
            for kind in ("IndexBinaryMultiHash", "IndexBinaryFlat"):
                peers[f"faiss {kind}"] = partial(_faiss, args, file, kind, counts)
        large = compare(
            "near_duplicates",
            partial(run, "ours", partial(_ours, hashes, args.radius)),
            peers,
            repeats=args.rounds,
            inputs=inputs,
            finish=False,
        )
    if len(set(counts.values())) > 1:
        raise SystemExit(f"they disagree on the number of pairs: {counts}")
    large["pairs"] = counts["ours"]
    counts.clear()
    small = compare(
        "near_duplicates, ImageHash",
        partial(run, "ours", partial(_ours, few, args.radius)),
        {"ImageHash, all pairs": partial(run, "imagehash", partial(_imagehash, few, args.radius))},
        repeats=args.rounds,
        inputs={**inputs, "hashes": len(few)},
        finish=False,
    )
    if len(set(counts.values())) > 1:
        raise SystemExit(f"they disagree on the number of pairs: {counts}")
    return {**large, "imagehash": {key: small[key] for key in ("ours", "peers", "ratios", "inputs")}}


def _hashes(rows: int) -> np.ndarray:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 1 << 64, rows, dtype=np.uint64)
    copies = rows // 5
    hashes[:copies] = hashes[random.integers(0, rows, copies)]
    for _ in range(8):
        flip = np.uint64(1) << random.integers(0, 64, copies).astype(np.uint64)
        hashes[:copies] ^= np.where(random.random(copies) < 0.4, flip, np.uint64(0))
    for _ in range(20):
        cluster = random.integers(0, rows, 200)
        hashes[cluster] = hashes[cluster[0]]
        for _ in range(4):
            hashes[cluster] ^= np.uint64(1) << random.integers(0, 64, 200).astype(np.uint64)
    return random.permutation(np.unique(hashes))


def _ours(hashes: np.ndarray, radius: int) -> int:
    from stages.index.hamming import near_within, plan

    blocks = plan(hashes[:, None], radius)
    return sum(len(row) for row, _ in near_within(blocks, blocks.tables(), radius))


def _brute_force(hashes: np.ndarray, radius: int) -> int:
    pairs = 0
    for start in range(0, len(hashes), 64):
        block, rest = hashes[start : start + 64], hashes[start:]
        near = np.bitwise_count(block[:, None] ^ rest[None]) <= radius
        pairs += int(np.triu(near, 1).sum())
    return pairs


def _imagehash(hashes: np.ndarray, radius: int) -> int:
    import imagehash

    made = [imagehash.hex_to_hash(f"{value:016x}") for value in hashes.tolist()]
    return sum(one - other <= radius for one, other in _pairs(made))


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    for place, one in enumerate(items):
        for other in items[place + 1 :]:
            yield one, other


_FAISS = """
import sys, time, numpy as np, faiss
kind, file, radius = sys.argv[1], sys.argv[2], int(sys.argv[3])
hashes = np.load(file).view(np.uint8).reshape(-1, 8).copy()
faiss.omp_set_num_threads(1)
start = time.perf_counter()
if kind == "IndexBinaryFlat":
    index = faiss.IndexBinaryFlat(64)
else:
    # Three keys of 21 bits with up to radius // 3 flipped each: exact, and faster than other cuts at radius 8.
    index = faiss.IndexBinaryMultiHash(64, 3, 21)
    index.nflip = radius // 3
index.add(hashes)
found = 0
for begin in range(0, len(hashes), 20_000):
    limits, _, others = index.range_search(hashes[begin : begin + 20_000], radius + 1)
    rows = np.repeat(np.arange(begin, begin + len(limits) - 1), np.diff(limits).astype(np.int64))
    found += int((others > rows).sum())
print(time.perf_counter() - start, found)
"""


def _faiss(args: argparse.Namespace, file: Path, kind: str, counts: dict[str, int]) -> float:
    command = [args.faiss_python, "-c", _FAISS, kind, str(file), str(args.radius)]
    seconds, pairs = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    counts[kind] = int(pairs)
    return float(seconds)


if __name__ == "__main__":
    raise SystemExit(main())
