"""CIDEr-D, VQA accuracy, the caption suite and METEOR, each against the peer doing the same, in one run.

* `cider_d`: CIDEr-D of all images of COCO val2014, the first caption of each against its other ones, tokenised before;
  peer: pycocoevalcap's `Cider`.
* `vqa`: VQA accuracy, official mode, with the means by answer and question type as `pairmill score vqa` takes them, of
  20,000 made questions in the official formats (`metric_peers/made_vqa.py`); peer: the official algorithm
  (`metric_peers/official_vqa.py`), checked on `golden/vqa` first where $PAIRMILL_SHARED (or `../shared`) has it. Beside
  it ours in both modes, and the accuracies without the means.
* `vqa_files`: the same from the files to the means, where reading JSON is most of the work on either side. No claim.
* `captions`: BLEU-1..4, ROUGE-L and CIDEr-D from raw captions of 5,000 images, tokenization included; peer:
  pycocoevalcap's `PTBTokenizer` for both sides, `Bleu`, `Rouge`, `Cider`, as its `eval.py` goes about it.
* `meteor`: METEOR of 1,000 images, tokenised before; peer: pycocoevalcap's `Meteor`, the start of its JVM included.
  Ours opens tables that are built once; building them is timed apart. No claim: how much of the peer's time is its
  start depends on the number of images.

All scores, corpus and each image's, are asserted equal to 1e-12 relative in every round. Each run is a process of its
own. The clock runs around the work alone: imports are done and inputs parsed, on either side by its own reader, but
a JVM is part of the work. Peak memory is that of the process, imports and inputs included (*before* is its peak when
the clock starts), and of its largest subprocess, a JVM; a subprocess counts at least as much as the process that
started it had then. The peers' tokenizer writes a file into the folder where pycocoevalcap is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from benchmarks.common import machine, report  # noqa: E402

CONTENDER = Path(__file__).resolve().parent / "metric_peers" / "contender.py"
PEERS = {
    "cider_d": "pycocoevalcap Cider",
    "vqa": "official algorithm",
    "vqa_files": "official algorithm, files",
    "captions": "pycocoevalcap",
    "meteor": "pycocoevalcap Meteor",
}
#: Other ways of ours, measured beside it: their sides, and what they are called.
WAYS = {"vqa": {"both": "ours, both modes", "alone": "ours, no means by type"}}
TOLERANCE = 1e-12

Runs = dict[str, list[dict[str, Any]]]
"""Side -> what its processes told, a round each."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40_504, help="images of val2014 for cider_d (at most 40504)")
    parser.add_argument("--questions", type=int, default=20_000, help="made questions for vqa (default 20000)")
    parser.add_argument("--suite-images", type=int, default=5000, help="images for captions (default 5000)")
    parser.add_argument("--meteor-images", type=int, default=1000, help="images for meteor (default 1000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-meteor", action="store_true", help="leave METEOR out: its JVM takes more than 1 GB")
    options = parser.parse_args()
    of_meteor = 0 if options.skip_meteor else options.meteor_images
    claims = [claim for claim in PEERS if claim != "meteor" or of_meteor]
    with tempfile.TemporaryDirectory() as scratch:
        sizes = (options.images, options.questions, options.suite_images, of_meteor)
        inputs = _child(scratch, "prepare", scratch, *sizes)
        inputs["vqa peer checked"] = _golden(scratch)
        if of_meteor:
            inputs["meteor tables built in s"] = round(_child(scratch, "build")["seconds"], 2)
        inputs["load before"] = round(os.getloadavg()[0], 2)
        results = {claim: _claim(claim, scratch, options.rounds, inputs) for claim in claims}
    inputs["load after"] = round(os.getloadavg()[0], 2)
    merged = {
        key: {name: part[key] for claim in results.values() for name, part in claim.items()}
        for key in ("ours", "peers", "ratios", "peak_mb")
    }
    print(json.dumps({"name": "metrics", "unit": "s", **merged, "inputs": inputs, "machine": machine()}), flush=True)


def _child(scratch: str, *arguments: object) -> dict[str, Any]:
    """What a contender tells, in a process of its own. Raises RuntimeError with what it complained of."""
    command = [sys.executable, str(CONTENDER), *map(str, arguments)]
    # Tables of METEOR elsewhere would leave nothing to build.
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "PAIRMILL_CACHE": scratch}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _golden(scratch: str) -> str:
    folder = Path(os.environ.get("PAIRMILL_SHARED", ROOT.parent / "shared")) / "golden" / "vqa"
    if not folder.is_dir():
        print("vqa: the peer is NOT checked: no golden/vqa; set PAIRMILL_SHARED to the shared data", file=sys.stderr)
        return "no: golden/vqa is absent"
    return f"on {_child(scratch, 'golden', folder)['questions']} questions of golden/vqa"


def _claim(claim: str, scratch: str, rounds: int, inputs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Run both sides in turns, assert what came out, print the tables; name of a table -> its figures."""
    ways = WAYS.get(claim, {})
    sides = ["ours", *ways, "peer"]
    runs: Runs = {side: [] for side in sides}
    apart = 0.0
    for number in range(rounds):
        shift = number % len(sides)
        for side in sides[shift:] + sides[:shift]:
            figures = _child(scratch, claim, side, scratch)
            runs[side].append(figures)
            label = f"{claim}: round {number + 1}/{rounds}: {side}"
            print(f"{label}: {figures['seconds']:.4g} s, {figures['peak_mb']:.0f} MB", file=sys.stderr, flush=True)
        apart = max(apart, *(_apart(scratch, claim, side) for side in sides[:-1]))
    notes: dict[str, Any] = {"largest relative difference of any score": apart}
    if late := max(run["late_imports"] for run in runs["ours"]):
        notes["imports of ours at first use, not in the time, s at most"] = round(late, 2)
    notes |= {name: text for name, text in runs["ours"][-1].items() if isinstance(text, str)}
    inputs |= {f"{claim}: {key}": value for key, value in notes.items()}
    results = {}
    for side in sides[:-1]:
        name = claim if side == "ours" else f"{claim}_{side}"
        title = f"{claim}, {ways[side]}" if side in ways else claim
        peer = {PEERS[claim]: _seconds(runs["peer"])}
        shown = dict(inputs) if claim == "cider_d" else notes if side == "ours" else {}
        peaks = {"ours": _peaks(runs[side]), "peer": _peaks(runs["peer"])}
        results[name] = report(title, _seconds(runs[side]), peer, inputs=shown, finish=False, peak_mb=peaks)
        for who, peak in peaks.items():
            print(f"  peak of {who}, MB: " + ", ".join(f"{key} {value:.0f}" for key, value in peak.items()), flush=True)
    return results


def _apart(scratch: str, claim: str, side: str) -> float:
    """Largest relative difference of a side's scores from the peer's. Raises RuntimeError where one is too large."""
    ours, peer = _results(scratch, claim, side), _results(scratch, claim, "peer")
    if side != "alone" and ours.keys() != peer.keys():
        raise RuntimeError(f"{claim}: {side} has other scores than the peer: {sorted(ours.keys() ^ peer.keys())}")
    largest = 0.0
    for name, scores in ours.items():
        if scores.shape != peer[name].shape:
            raise RuntimeError(f"{claim}: {side} has {scores.shape} of {name}, the peer {peer[name].shape}")
        scale = np.maximum(np.abs(peer[name]), np.finfo(np.float64).tiny)
        difference = float(np.max(np.abs(scores - peer[name]) / scale, initial=0.0))
        if not difference <= TOLERANCE:
            raise RuntimeError(f"{claim}: {side} differs from the peer in {name} by {difference:.3g} relative")
        largest = max(largest, difference)
    return largest


def _results(scratch: str, claim: str, side: str) -> dict[str, np.ndarray]:
    with np.load(Path(scratch, f"{claim}-{side}.npz")) as file:
        arrays = dict(file)
    if "questions" in arrays:
        # Each side has the questions in an order of its own.
        order = np.argsort(arrays["questions"])
        arrays |= {name: arrays[name][order] for name in ("questions", "per_question")}
    return arrays


def _seconds(runs: Sequence[dict[str, Any]]) -> list[float]:
    return [run["seconds"] for run in runs]


def _peaks(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """At most, over the rounds."""
    names = {"process": "peak_mb", "before": "before_mb", "subprocess": "subprocess_mb"}
    return {name: round(max(run[key] for run in runs), 1) for name, key in names.items()}


if __name__ == "__main__":
    main()
