"""How soon a fresh process has its first batch at mid-epoch of a large data set, and what memory that takes.

Inputs, made in `--folder` (a temporary one unless given; some 180 bytes per sample): `--samples` rows of a real
`index.arrow` with uids of their own, three sources and a tenth of the pairs shown twice, and a `tokens` artifact of
as many captions, in shards of 10,000. All shards are hard links to one tar with 64 different pictures of 256 x 256
pixels, so every read and checksum is real and the disk holds 300 MB of pictures only. Files are in the page cache, or
with `--cold` dropped from it before each run.

Ours: `PairDataset`, `Loader` and its first micro-batch of `--batch` samples, decoded to 224 and augmented, of the
global batch in the middle of the epoch; once in the order of the data and once as a mixture of the sources. The clock
starts when imports are done and stops when the batch is there; *order* is when its samples are known, *cpu* the
processor time of all processes until they have ended, batches prepared meanwhile included. Memory: the main process's
peak, and the proportional share of all processes (PSS, shared pages counted once) when the batch is there. Importing
torch alone takes the memory shown as *imports*.

Peer, with `--peer-python` (a Python that has mosaicml-streaming): a `StreamingDataset` of as many samples in as many
MDS shards, again links to one, told by `load_state_dict` to go on at mid-epoch, and its first `--batch` samples as
bytes, not decoded, in one process without workers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

PER_SHARD = 10_000
SOURCES = ("large", "middle", "small")
MIXTURE = {"large": 0.5, "middle": 0.3, "small": 0.2}

_MOSAIC = """
import json, os, sys, time
from streaming import StreamingDataset
from streaming.base.util import clean_stale_shared_memory
folder, samples, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
clean_stale_shared_memory()
began = time.perf_counter()
data = StreamingDataset(local=folder, shuffle=True, batch_size=batch)
nodes = data.num_canonical_nodes or 64
data.load_state_dict({"epoch": 0, "sample_in_epoch": samples // 2, "num_canonical_nodes": nodes,
                      "shuffle_seed": data.shuffle_seed, "initial_physical_nodes": 1})
rows = iter(data)
got = [len(next(rows)["image"]) for _ in range(batch)]
took = time.perf_counter() - began
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:")) / 1024
print(json.dumps({"seconds": took, "peak_mb": peak}), flush=True)
os._exit(0)
"""

_MOSAIC_WRITE = """
import io, json, os, sys
from streaming import MDSWriter
folder, pictures, per_shard, shards = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
files = [open(os.path.join(pictures, name), "rb").read() for name in sorted(os.listdir(pictures))]
with MDSWriter(out=folder, columns={"image": "bytes", "caption": "str"}, size_limit=1 << 31) as out:
    for number in range(per_shard):
        out.write({"image": files[number % len(files)], "caption": "a picture"})
with open(os.path.join(folder, "index.json")) as file:
    index = json.load(file)
(first,) = index["shards"]
index["shards"] = []
for shard in range(shards):
    name = f"shard.{shard:05d}.mds"
    if shard:
        os.link(os.path.join(folder, "shard.00000.mds"), os.path.join(folder, name))
    index["shards"].append({**first, "raw_data": {**first["raw_data"], "basename": name}})
with open(os.path.join(folder, "index.json"), "w") as file:
    json.dump(index, file)
"""


def main() -> int:
    """Make the data, measure fresh processes in turns, end with one JSON object."""
    args = _arguments()
    if args.child:
        print(json.dumps(_first_batch(args)), flush=True)
        return 0
    from common import report

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        shards = max(1, args.samples // PER_SHARD)
        samples = shards * PER_SHARD
        _make(folder, shards)
        runs: dict[str, Callable[[], dict[str, float]]] = {
            "ours": partial(_ours, args, folder),
            "ours, mixture": partial(_ours, args, folder, "--mixture"),
        }
        if args.peer_python:
            _make_peer(folder, shards, args.peer_python)
            runs["mosaicml-streaming"] = partial(_peer, args, folder, samples)
        results: dict[str, list[dict[str, float]]] = {who: [] for who in runs}
        names = list(runs)
        for number in range(args.rounds):
            shift = number % len(names)
            for who in names[shift:] + names[:shift]:
                if args.cold:
                    _drop(folder)
                results[who].append(runs[who]())
                print(f"round {number + 1}/{args.rounds}: {who}: {results[who][-1]}", file=sys.stderr, flush=True)
    inputs = {"samples": samples, "shards": shards, "batch": args.batch, "workers": args.workers, "cold": args.cold}
    seconds = {who: [one["seconds"] for one in rounds] for who, rounds in results.items()}
    summary = report("resume", seconds.pop("ours"), seconds, inputs=inputs, finish=False)
    for who, rounds in results.items():
        print(
            f"  {who:24}" + ", ".join(f"{key} {max(one[key] for one in rounds):.4g}" for key in rounds[0]) + " at most"
        )
    print(json.dumps(summary | {"runs": results}), flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000, help="rows of the index (default 10000000)")
    parser.add_argument("--batch", type=int, default=64, help="micro-batch of one rank (default 64)")
    parser.add_argument("--accumulation", type=int, default=16, help="micro-batches in a global batch (default 16)")
    parser.add_argument("--workers", type=int, default=2, help="train.loader_workers (default 2)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the data are made, and kept for the next time")
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache before each run")
    parser.add_argument("--peer-python", help="a Python interpreter that has mosaicml-streaming")
    parser.add_argument("--mixture", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _ours(args: argparse.Namespace, folder: Path, *more: str) -> dict[str, float]:
    arguments = [
        "--batch",
        args.batch,
        "--accumulation",
        args.accumulation,
        "--workers",
        args.workers,
        "--child",
        folder,
    ]
    return _child([sys.executable, __file__, *map(str, arguments), *more])


def _peer(args: argparse.Namespace, folder: Path, samples: int) -> dict[str, float]:
    arguments = [str(folder / "mds"), str(samples), str(args.batch)]
    return _child([args.peer_python, "-c", _MOSAIC, *arguments])


def _child(command: list[str]) -> dict[str, float]:
    began = time.perf_counter()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    summary: dict[str, float] = json.loads(output.splitlines()[-1])
    return summary | {"process_seconds": time.perf_counter() - began}


def _first_batch(args: argparse.Namespace) -> dict[str, float]:
    """In a process of its own: from opening to the first batch at mid-epoch."""
    from stages.base.artifact import Artifact
    from stages.train.config import AugmentationConfig, OptimizationConfig
    from stages.train.data.loader import Loader
    from stages.train.data.pairs import PairDataset

    settings = OptimizationConfig(
        global_batch=args.batch * args.accumulation,
        micro_batch=args.batch,
        loader_workers=args.workers,
        augmentation=AugmentationConfig(crop_scale=(0.5, 1.0), horizontal_flip=0.5),
    )
    imports = _peak()
    began, spent = time.perf_counter(), _cpu()
    data = PairDataset(Artifact(str(args.child / "shards")), Artifact(str(args.child / "tokens")), 64, flips=True)
    step = len(data) // settings.global_batch // 2
    loader = Loader(data, settings, 224, 0, 1, args.accumulation, mixture=MIXTURE if args.mixture else None)
    loader.stream.batch(step)
    opened = time.perf_counter() - began
    batch = next(loader.batches(step, step + 100))
    took = time.perf_counter() - began
    assert batch["pixels"].shape == (args.batch, 3, 224, 224)
    peak = _peak()
    shared = sum(map(_pss, [os.getpid(), *_children()]))
    loader.close()
    return {
        "seconds": took,
        "order_seconds": opened,
        "cpu_seconds": _cpu() - spent,
        "peak_mb": peak,
        "all_pss_mb": shared,
        "imports_mb": imports,
    }


def _children() -> list[int]:
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def _cpu() -> float:
    """Processor time so far, of workers that have ended too."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _pss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _make(folder: Path, shards: int) -> None:
    """The two artifacts, unless an earlier call made them."""
    import numpy as np

    if (folder / "tokens" / "manifest.json").exists():
        return
    pictures, tars, tokens = folder / "pictures", folder / "shards", folder / "tokens"
    for made in (pictures, tars, tokens):
        made.mkdir(parents=True, exist_ok=True)
    files = _pictures(pictures)
    places = _tar(tars / "train-00000.tar", files)
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 24, PER_SHARD)
    np.save(tokens / "train-00000.ids.npy", rng.integers(3, 50_000, lengths.sum()).astype(np.uint16))
    np.save(tokens / "train-00000.offsets.npy", np.concatenate([[0], lengths.cumsum()]))
    for shard in range(1, shards):
        for parent, suffix in ((tars, "tar"), (tokens, "ids.npy"), (tokens, "offsets.npy")):
            os.link(parent / f"train-00000.{suffix}", parent / f"train-{shard:05d}.{suffix}")
    _index(tars / "index.arrow", shards, places)
    names = [f"train-{shard:05d}" for shard in range(shards)]
    listed = [{"name": f"{name}.tar", "samples": PER_SHARD} for name in names]
    (tars / "dataset.json").write_text(json.dumps({"samples": shards * PER_SHARD, "shards": listed}))
    (tokens / "tokens.json").write_text(json.dumps({"vocabulary": 50_000, "shards": names}))
    for parent, mark in ((tars, "a"), (tokens, "b")):
        content = {
            "fingerprint": mark * 64,
            "counts": {},
            "files": [{"name": p.name} for p in sorted(parent.iterdir())],
        }
        (parent / "manifest.json").write_text(json.dumps(content))


def _pictures(folder: Path) -> list[bytes]:
    import numpy as np
    from PIL import Image

    for number in range(64):
        rough = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((256, 256), Image.Resampling.BICUBIC).save(
            folder / f"{number:02d}.jpg", quality=90
        )
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def _tar(path: Path, files: list[bytes]) -> dict[str, list[Any]]:
    """Write the one tar; returns the index's columns that are the same for every shard."""
    from stages.shard.index import checksum
    from stages.shard.writer import ShardWriter

    results: dict[str, list[Any]] = {}
    with ShardWriter(path) as tar:
        for number in range(PER_SHARD):
            parts = {"jpg": files[number % len(files)], "json": b"{}", "txt": b"a picture"}
            at = tar.add(f"{number:032x}", parts)
            for name, part in (("image", "jpg"), ("text", "txt"), ("json", "json")):
                results.setdefault(f"{name}_offset", []).append(at[part].offset)
                results.setdefault(f"{name}_length", []).append(at[part].length)
                results.setdefault(f"{name}_xxh3", []).append(checksum(parts[part]))
    return results


def _index(path: Path, shards: int, places: dict[str, list[Any]]) -> None:
    import numpy as np
    import pyarrow as pa

    from stages.shard.index import index_schema

    schema = index_schema()
    at_once = min(shards, 100)
    with pa.ipc.new_file(str(path), schema) as writer:
        for first in range(0, shards, at_once):
            several = range(first, min(shards, first + at_once))
            rows = len(several) * PER_SHARD
            rng = np.random.default_rng([1, first])
            uids = _hex(rng.bytes(16 * rows), rows)
            codes = rng.choice(3, rows, p=[0.7, 0.25, 0.05]).astype(np.int32)
            columns: dict[str, Any] = {
                "uid": uids,
                "image_uid": uids,
                "source": pa.DictionaryArray.from_arrays(codes, list(SOURCES)),
                "shard": np.repeat(np.array(several, dtype=np.int32), PER_SHARD),
                "image_ext": pa.array(["jpg"] * PER_SHARD).take(np.arange(rows) % PER_SHARD),
                "repeats": (1 + (rng.random(rows) < 0.1)).astype(np.int16),
            }
            for name, values in places.items():
                columns[name] = pa.array(values, schema.field(name).type).take(np.arange(rows) % PER_SHARD)
            writer.write_batch(pa.record_batch([columns[name] for name in schema.names], schema=schema))


def _hex(raw: bytes, rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    offsets = pa.py_buffer(np.arange(rows + 1, dtype=np.int32) * 32)
    return pa.StringArray.from_buffers(rows, offsets, pa.py_buffer(raw.hex().encode()))


def _make_peer(folder: Path, shards: int, python: str) -> None:
    if not (folder / "mds" / "index.json").exists():
        arguments = [str(folder / "mds"), str(folder / "pictures"), str(PER_SHARD), str(shards)]
        subprocess.run([python, "-c", _MOSAIC_WRITE, *arguments], check=True)


def _drop(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and (path.stat().st_nlink == 1 or "00000" in path.name):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    sys.exit(main())
