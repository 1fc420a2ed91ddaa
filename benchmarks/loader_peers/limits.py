"""How fast the same bytes could be decoded at best, and where our time goes.

`limits.py decode` starts as many processes as the loaders have workers; each holds its share of the photographs in
memory and decodes them at full size, nothing else. `limits.py split` takes samples one by one in a single process
through the functions that our workers call, and a batch at a time through what the rank's process does.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy, OpenCV and PyTorch are loaded
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import numpy as np  # noqa: E402
from transforms import SIZE  # noqa: E402

#: CPU time, so that what else the machine does stays out of it; with a warm page cache nothing is waited for.
_clock = time.thread_time


def by_simplejpeg(data: bytes) -> Any:
    """uint8 [height, width, 3] by libjpeg-turbo, with its exact transform, at full size."""
    import simplejpeg

    return simplejpeg.decode_jpeg(data)


def by_pillow(data: bytes) -> Any:
    """The same by Pillow."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


DECODERS: dict[str, Callable[[bytes], Any]] = {"simplejpeg": by_simplejpeg, "Pillow": by_pillow}


def _decode_all(name: str, files: Sequence[Path], ready: Barrier, spent: Any) -> None:
    held = {path: path.read_bytes() for path in set(files)}
    decode = DECODERS[name]
    decode(held[files[0]])
    ready.wait()
    start = time.process_time()
    for path in files:
        decode(held[path])
    with spent.get_lock():
        spent.value += time.process_time() - start
    ready.wait()


def decode_alone(name: str, files: Sequence[Path], workers: int) -> dict[str, float]:
    """Photographs a second that `workers` processes decode together, and CPU milliseconds for each."""
    context = multiprocessing.get_context("fork")
    ready, cpu = context.Barrier(workers + 1), context.Value("d", 0.0)
    shares = [files[worker::workers] for worker in range(workers)]
    processes = [context.Process(target=_decode_all, args=(name, share, ready, cpu)) for share in shares]
    for process in processes:
        process.start()
    ready.wait(timeout=300)
    start = time.perf_counter()
    ready.wait(timeout=300)
    spent = time.perf_counter() - start
    for process in processes:
        process.join()
    return {"rate": len(files) / spent, "cpu_ms": 1000 * cpu.value / len(files)}


def split(folder: Path, batch: int, samples: int) -> dict[str, float]:
    """CPU milliseconds per sample: order, read, decode, augment, texts; and collating, shared by a batch.

    What hand-out and hand-over between processes cost the rank shows in `process_ms` of a run.
    """
    import cv2
    import ours
    import torch

    from stages.train.data.sampler import BatchSampler

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    for path in folder.rglob("*.*"):
        path.read_bytes()
    data, settings = ours.dataset(folder), ours.settings(batch, 0)
    sampler = BatchSampler(data, settings.seed, batch)
    slot = np.zeros((batch, 3, SIZE, SIZE), dtype=np.float32)  # written before, as the workers' slots are
    spent: dict[str, float] = defaultdict(float)
    steps = -(-samples // batch)
    for step in range(steps + 1):
        if step == 1:
            spent.clear()  # the first batch opened files
        start = _clock()
        epochs, numbers = sampler.batch(step)
        spent["order"] += _clock() - start
        places = list(zip(epochs.tolist(), numbers.tolist(), strict=True))
        texts = [_timed(data, settings, place, out, spent) for place, out in zip(places, slot, strict=True)]
        start = _clock()
        lengths = [data.lengths(number, epoch) for epoch, number in places]
        ours.collate(slot, [0] * batch, texts, max(p for p, _ in lengths), max(t for _, t in lengths))
        spent["collate"] += _clock() - start
    return {name: 1000 * seconds / (steps * batch) for name, seconds in spent.items()}


def _timed(data: Any, settings: Any, place: tuple[int, int], out: Any, spent: dict[str, float]) -> Any:
    """One sample as `stages.train.data.transform` makes it, its pixels into `out`; returns its texts."""
    from stages.train.data.augment import draw_crop, sample_random, training_pixels
    from stages.train.data.decode import decode, image_size

    decoding = 0.0

    def decoded(shrink: int) -> Any:
        nonlocal decoding
        began = _clock()
        pixels = decode(sample.image, shrink)
        decoding += _clock() - began
        return pixels

    epoch, number = place
    times = [_clock()]
    sample = data.sample(number, epoch)
    times.append(_clock())
    draw = sample_random(settings.seed, epoch, sample.seed)
    crop = draw_crop(*image_size(sample.image), sample.boxes, sample.flippable, settings.augmentation, draw)
    training_pixels(decoded, crop, SIZE, settings.augmentation, *settings.pixel_statistics, draw, out)
    times.append(_clock())
    texts = sample.texts(crop)
    times.append(_clock())
    spent["read"] += times[1] - times[0]
    spent["decode"] += decoding
    spent["augment"] += times[2] - times[1] - decoding
    spent["texts"] += times[3] - times[2]
    return texts


def main() -> None:
    """Measure one thing; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["decode", "split"])
    parser.add_argument("--files", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--decoder", choices=sorted(DECODERS), default="simplejpeg")
    for name in ("workers", "batch", "samples"):
        parser.add_argument(f"--{name}", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.what == "split":
        print(json.dumps(split(arguments.data, arguments.batch, arguments.samples)))
        return
    files = [Path(line) for line in arguments.files.read_text("utf-8").splitlines()][: arguments.samples]
    print(json.dumps(decode_alone(arguments.decoder, files, arguments.workers)))


if __name__ == "__main__":
    main()
