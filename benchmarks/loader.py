"""Training batches a second: ours against webdataset, mosaicml-streaming, litdata and Megatron-Energon, and the limit.

Input: `--images`, a folder of JPEG photographs, each taken several times under different keys until there are enough.
Every contender first writes them as they are (no image is encoded again) with its own writer in its own format, and
then delivers float32 [batch, 3, 224, 224] tensors from its own loader with `--workers` processes: decoded, random
resized crop, colour jitter, ImageNet's normalisation. Each is written as its documentation shows and runs in a process
of its own, peers in `--peer-python` (with `webdataset mosaicml-streaming litdata megatron-energon torch torchvision`;
those that do not import are listed); every process uses one thread. All runs are taken in turns, after a round that is
not counted. All files of a contender are read before each of its runs, so that the page cache is warm: this compares
processing, not disks. A run passes `--warmup` batches and times those after it, with further ones still to come;
the time to the first batch, from opening the data set on and without imports, is a table of its own. CPU milliseconds
per sample, of all processes of a contender, are listed too: they depend less on what else the machine does.

Three comparisons:
- peers decode and augment the standard way: Pillow by their own decoders, torchvision tensors for litdata;
- peers with our decoder and augmentation (their Python then needs `simplejpeg opencv-python-headless pydantic`), which
  leaves what the loaders themselves do;
- the limit: the same photographs decoded at full size by as many processes, from memory, with nothing else done; our
  share of it is above 1 where smaller crops allow decoding at a smaller scale. Where our time goes is measured in a
  single process with the functions that our workers call.

Ours also makes captions' token ids and text masks, peers only an integer. Not compared: what the orders are worth
(each loader shuffles in the way its documentation shows), exact resumes, object storage, memory.

The last line is one JSON object: name, ours, peers, ratios (standard way); with_our_decode, first_batch, limit, split.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from common import report  # noqa: E402

_FOLDER = Path(__file__).resolve().parent / "loader_peers"
_PEERS = ("webdataset", "mosaicml-streaming", "litdata", "megatron-energon")
_WAYS = ("standard", "our_decode")
_DECODERS = ("simplejpeg", "Pillow")
#: Batches that come after the timed ones, so that the end of an epoch slows nobody down.
_TAIL = 8

#: (contender, way), ("ours", "standard") and ("limit", decoder).
Run = tuple[str, str]


class Failed(Exception):
    """A process of a contender ended with an error; its last lines."""


class Bench:
    """All contenders over one list of photographs, in a folder of its own."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder = folder
        self.arguments = arguments
        self.batches = -(-arguments.samples // arguments.batch)
        self.list = folder / "files.txt"
        self.about: dict[str, dict[str, Any]] = {}
        self.absent: dict[str, str] = {}
        """Why a contender or one of its ways takes no part."""
        self.data: dict[Run, Path] = {}

    def collect(self) -> dict[str, Any]:
        """Choose the photographs; returns what they are."""
        photographs = sorted(p for p in self.arguments.images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
        if not photographs:
            raise SystemExit(f"--images {self.arguments.images}: no JPEG in it")
        # A multiple of the tars' size times the workers: all of them then have the same number of tars.
        step = 4 * self.arguments.workers
        batches = -(-(self.batches + self.arguments.warmup + _TAIL) // step) * step
        needed = batches * self.arguments.batch
        files = (photographs * -(-needed // len(photographs)))[:needed]
        random.Random(0).shuffle(files)
        self.list.write_text("\n".join(str(path.resolve()) for path in files), encoding="utf-8")
        size = sum(path.stat().st_size for path in photographs) / len(photographs)
        return {"photographs": len(photographs), "mean_bytes": round(size), "samples_stored": needed}

    def prepare(self) -> None:
        """Ask every contender for its versions and have it write its data."""
        for name in ("ours", *self.arguments.peers):
            try:
                self.about[name] = self._call(name, ["about"])
            except Failed as error:
                self._drop((name, "standard"), f"does not import: {error}")
                continue
            for way in _WAYS if name != "ours" else _WAYS[:1]:
                if way != "standard" and self.about[name]["same_data"]:
                    if (name, "standard") in self.data:
                        self.data[name, way] = self.data[name, "standard"]
                    continue
                target = self.folder / f"{name}-{way}"
                target.mkdir()
                print(f"{name} ({way}): writing", file=sys.stderr, flush=True)
                try:
                    self._call(name, ["convert", "--files", str(self.list), "--data", str(target), "--way", way])
                    self.data[name, way] = target
                except Failed as error:
                    self._drop((name, way), f"does not write: {error}")

    def measure(self) -> dict[Run, list[dict[str, float]]]:
        """All runs, `--rounds` times in turns."""
        runs: list[Run] = [*self.data, *(("limit", name) for name in _DECODERS)]
        runs: dict[Run, list[dict[str, float]]] = defaultdict(list)
        for number in range(-1, self.arguments.rounds):
            shift = number % len(runs)
            for run in runs[shift:] + runs[:shift]:
                try:
                    figures = self._run(run)
                except Failed as error:
                    if number >= 0:
                        raise SystemExit(f"{run[0]} ({run[1]}), which had worked, failed: {error}") from None
                    self._drop(run, f"does not run: {error}")
                    continue
                if number >= 0:
                    runs[run].append(figures)
                label = "warm-up" if number < 0 else f"round {number + 1}/{self.arguments.rounds}"
                print(
                    f"{label}: {run[0]} ({run[1]}): {figures['rate']:.0f}/s, {figures['cpu_ms']:.2f} ms CPU",
                    file=sys.stderr,
                    flush=True,
                )
            runs = [run for run in runs if _name(run) not in self.absent]
        return runs

    def split(self) -> dict[str, float]:
        """CPU milliseconds of ours per sample and step of the work."""
        options = {"data": self.data["ours", "standard"], "batch": self.arguments.batch}
        return self._script("limits.py", sys.executable, ["split"], {**options, "samples": self.arguments.samples})

    def _run(self, run: Run) -> dict[str, float]:
        if run[0] == "limit":
            options = {"files": self.list, "workers": self.arguments.workers, "samples": self.arguments.samples}
            return self._script("limits.py", sys.executable, ["decode", "--decoder", run[1]], options)
        folder = self.data[run]
        for path in folder.rglob("*"):
            if path.is_file():
                path.read_bytes()
        return self._call(run[0], ["run", "--way", run[1], "--data", str(folder)])

    def _call(self, name: str, what: list[str]) -> dict[str, Any]:
        python = sys.executable if name == "ours" else self.arguments.peer_python
        options = {"batch": self.arguments.batch, "workers": self.arguments.workers}
        options |= {"warmup": self.arguments.warmup, "batches": self.batches}
        return self._script("contender.py", python, [name, *what], options)

    def _script(self, script: str, python: str, what: list[str], options: dict[str, Any]) -> dict[str, Any]:
        command = [python, "-W", "ignore", str(_FOLDER / script), *what]
        for key, value in options.items():
            command += [f"--{key}", str(value)]
        try:
            # A session of its own: all that a contender started can be counted, and ended.
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
        except FileNotFoundError:
            raise Failed(f"there is no {python}") from None
        try:
            out, errors = process.communicate(timeout=self.arguments.timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"took more than {self.arguments.timeout} s") from None
            raise
        if process.returncode:
            raise Failed((errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1])
        answer: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return answer

    def _drop(self, run: Run, why: str) -> None:
        if run[0] in ("ours", "limit"):
            raise SystemExit(f"{run[0]}: {why}")
        self.absent[_name(run)] = why
        print(f"{_name(run)}: {why}", file=sys.stderr, flush=True)


def _name(run: Run) -> str:
    return {"standard": run[0], "our_decode": f"{run[0]}, our decode"}.get(run[1], ", ".join(run))


def shares(ours: Sequence[float], limit: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of ours over the limit, round by round."""
    result = [mine / most for mine, most in zip(ours, limit, strict=True)]
    return {"median": median(result), "min": min(result), "max": max(result)}


def tables(bench: Bench, runs: dict[Run, list[dict[str, float]]], inputs: dict[str, Any]) -> dict[str, Any]:
    """Print every table; returns the JSON object."""

    def column(run: Run, key: str = "rate") -> list[float]:
        return [figures[key] for figures in runs[run]]

    def peers(way: str, key: str = "rate") -> dict[str, list[float]]:
        return {run[0]: column(run, key) for run in runs if run[1] == way and run[0] not in ("ours", "limit")}

    mine: Run = ("ours", "standard")
    rates = column(mine)
    result = report("loader", rates, peers("standard"), "samples/s", "higher", inputs, finish=False)
    swapped = report("loader, peers with our decode", rates, peers("our_decode"), "samples/s", "higher", finish=False)
    first = report("first batch", column(mine, "first_batch"), peers("standard", "first_batch"), finish=False)
    result["with_our_decode"] = {key: swapped[key] for key in ("peers", "ratios")}
    result["first_batch"] = {key: first[key] for key in ("unit", "ours", "peers", "ratios")}
    result["limit"] = {
        name: {"rate": median(column(("limit", name))), "ours": shares(rates, column(("limit", name)))}
        for name in _DECODERS
    }
    print(f"\nDecoding alone, {bench.arguments.workers} processes, nothing read, nothing augmented")
    for name, figures in result["limit"].items():
        share = figures["ours"]
        spread = f"{share['median']:.0%} ({share['min']:.0%}..{share['max']:.0%})"
        print(f"  {name:24}{figures['rate']:12.4g} samples/s; ours, all done, is {spread} of it")
    result["split"] = bench.split()
    result["cpu_ms"] = {_name(run): median(column(run, "cpu_ms")) for run in runs}
    result["process_ms"] = {_name(run): median(column(run, "process_ms")) for run in runs if run[0] != "limit"}
    total = sum(result["split"].values())
    print("\nWhere our time goes, CPU milliseconds per sample in a single process")
    for name, value in result["split"].items():
        print(f"  {name:24}{value:12.3f}{value / total:8.1%}")
    print("\nCPU milliseconds per sample: of all processes, and of the one that trains")
    for name, value in result["cpu_ms"].items():
        own = result["process_ms"].get(name)
        print(f"  {name:34}{value:10.3f}" + (f"{own:10.3f}" if own is not None else ""))
    result["fastest_peer"] = min(result["ratios"].items(), key=lambda item: item[1]["median"], default=(None, None))[0]
    if result["fastest_peer"]:
        ratio = result["ratios"][result["fastest_peer"]]["median"]
        print(f"\nOurs is {ratio:.2f}x the fastest peer ({result['fastest_peer']}); the target is 1.3x")
    if bench.absent:
        print(f"Not measured: {'; '.join(f'{name} {why}' for name, why in bench.absent.items())}")
    result["not_measured"] = bench.absent
    return result


def main() -> None:
    """Write, run in turns, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of JPEG photographs")
    parser.add_argument("--samples", type=int, default=2048, help="timed samples of a run")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes of each loader")
    parser.add_argument("--warmup", type=int, default=8, help="batches that pass before the timed ones")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter in which the peers are installed")
    parser.add_argument("--peers", nargs="*", choices=_PEERS, default=list(_PEERS))
    parser.add_argument("--work", type=Path, help="where to write the data sets (a temporary folder in it)")
    parser.add_argument("--timeout", type=float, default=600, help="most seconds of a single run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loader-", dir=arguments.work) as folder:
        bench = Bench(Path(folder), arguments)
        inputs = bench.collect()
        bench.prepare()
        inputs |= {"batch": arguments.batch, "workers": arguments.workers, "samples_timed": bench.batches}
        inputs["samples_timed"] *= arguments.batch
        inputs["page_cache"] = "warm: all files of a contender are read before each of its runs"
        for name, versions in bench.about.items():
            inputs[name] = ", ".join(f"{key} {value}" for key, value in versions.items() if key != "same_data")
        result = tables(bench, bench.measure(), inputs)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
