"""One contender in an interpreter of its own: `contender.py NAME convert|run|about ...`, one JSON object at the end.

Started by `benchmarks/loader.py`. `run` times the stream of batches: the first one from opening the data set on, and
the rate over `--batches` of them once `--warmup` have passed. Nothing is done with a batch besides checking its shape.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy, OpenCV and PyTorch are loaded
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

MODULES = {
    "ours": "ours",
    "webdataset": "with_webdataset",
    "mosaicml-streaming": "with_mosaic",
    "litdata": "with_litdata",
    "megatron-energon": "with_energon",
}


def about(module: Any) -> dict[str, Any]:
    """Versions of what takes part, and who decodes."""
    own = ["simplejpeg", "opencv-python-headless"] if module.PACKAGE == "pairmill" else [module.PACKAGE]
    packages = [*own, "Pillow", "numpy", "torch"]
    about = {"decoder": module.DECODER, "same_data": module.SAME_DATA}
    return {**about, **{package: version(package) for package in packages}}


def run(module: Any, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds to the first batch, samples a second afterwards, and CPU milliseconds for each of these samples.

    `process_ms` is the CPU time of this process, which would train; `cpu_ms` that of its workers too, which says what a
    sample costs on a machine that has other things to do as well.
    """
    start = time.perf_counter()
    stream = module.batches(arguments.data, arguments.batch, arguments.workers, arguments.way)
    pixels = take(stream, arguments.batch)
    first = time.perf_counter() - start
    for _ in range(arguments.warmup - 1):
        pixels = take(stream, arguments.batch)
    start, own, whole = time.perf_counter(), time.process_time(), session_cpu()
    for _ in range(arguments.batches):
        pixels = take(stream, arguments.batch)
    spent, own, whole = time.perf_counter() - start, time.process_time() - own, session_cpu() - whole
    samples = arguments.batches * arguments.batch
    figures = {"rate": samples / spent, "first_batch": first, "process_ms": 1000 * own / samples}
    figures["cpu_ms"] = 1000 * whole / samples
    mean, deviation = float(pixels.mean()), float(pixels.std())
    if not (abs(mean) < 1 and 0.5 < deviation < 2):
        raise SystemExit(f"pixels of mean {mean:.2f} and standard deviation {deviation:.2f} are not normalised")
    del pixels
    stream.close()
    return {**figures, "mean": mean, "deviation": deviation}


def session_cpu() -> float:
    """CPU seconds so far of all living processes of this session; 0 where there is no /proc."""
    session, ticks = os.getsid(0), 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            fields = path.read_text().rpartition(")")[2].split()  # from the state on; see proc(5)
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def take(stream: Iterator[Any], batch: int) -> Any:
    """The next batch. Raises SystemExit when it is not what every contender is to make."""
    import torch

    pixels = next(stream)
    if tuple(pixels.shape) != (batch, 3, 224, 224) or pixels.dtype != torch.float32:
        raise SystemExit(f"a batch of {pixels.dtype} {tuple(pixels.shape)}")
    return pixels


def main() -> None:
    """Do one thing and say how it went on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(MODULES))
    parser.add_argument("what", choices=["about", "convert", "run"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--files", type=Path)
    parser.add_argument("--way", choices=["standard", "our_decode"], default="standard")
    for name in ("batch", "workers", "warmup", "batches"):
        parser.add_argument(f"--{name}", type=int, default=1)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    module = importlib.import_module(MODULES[arguments.name])
    answer: dict[str, Any] = {}
    if arguments.what == "about":
        answer = about(module)
    elif arguments.what == "convert":
        files = [Path(line) for line in arguments.files.read_text("utf-8").splitlines()]
        module.convert(files, arguments.data, arguments.way, arguments.batch)
    else:
        answer = run(module, arguments)
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
