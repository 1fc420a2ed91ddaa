"""What each family of signals costs per image, and what measuring them in one pass saves over one pass each.

Inputs: image files below `--images` (COCO photographs; the first `--limit` by name), each with `--captions` captions of
nine words, written as one raw shard with its tables. One thread, of which processor time counts, so that other work on
the machine disturbs little. `ours` is one pass that reads and decodes every image once and shows it to all families;
the peer, `separate`, makes a pass of its own per family, as separate scripts do. Both call the same code, load models
beforehand and give the same values, which is checked. With `--models no` only families without a network run.

Run from the project's root: `python -m benchmarks.signals --images FOLDER`. The last line is one JSON object: name,
ours, peers, ratios, and `per_image_ms` by family.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.common import report  # noqa: E402
from stages.signals import registry  # noqa: E402
from stages.signals.config import SignalsConfig  # noqa: E402
from stages.signals.family import Family, Row  # noqa: E402

_WORDS = ["a", "small", "brown", "dog", "runs", "over", "the", "wet", "sand"]


def shard(images: list[Path], captions: int, folder: Path) -> tuple[Any, Path, Any]:
    """(attempts, file of image bytes end to end, pairs) of the images."""
    import pyarrow as pa

    attempts, pairs, offset = [], [], 0
    raw = folder / "raw-00000.tar"
    with open(raw, "wb") as out:
        for number, file in enumerate(images):
            data = file.read_bytes()
            out.write(data)
            attempts.append({"image_uid": f"{number:032x}", "offset": offset, "length": len(data)})
            offset += len(data)
            for caption in range(captions):
                text = " ".join(_WORDS[caption:] + _WORDS[:caption])
                pairs.append({"image_uid": f"{number:032x}", "caption": text, "meta": '{"similarity": 0.3}'})
    return pa.Table.from_pylist(attempts), raw, pa.Table.from_pylist(pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=Path, required=True, help="folder of image files, searched with its subfolders"
    )
    parser.add_argument("--limit", type=int, default=337, help="how many images (default 337)")
    parser.add_argument("--captions", type=int, default=5, help="captions per image (default 5, as COCO)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, ours and the peer in turns (default 3)")
    parser.add_argument("--models", choices=("yes", "no"), default="yes", help="whether families with networks run")
    parser.add_argument("--clip", type=str, default=None, help="folder of a CLIP model, to measure that family too")
    options = parser.parse_args()
    images = sorted(p for p in options.images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    images = images[: options.limit]
    if not images:
        parser.error(f"--images {options.images}: no image files there")
    groups = ["default" if options.models == "yes" else "cheap"]
    config = SignalsConfig.model_validate({"families": groups, "clip": {"model": options.clip}})
    families = registry.build(config)
    for family in families:
        family.check()
        family.setup()
    with tempfile.TemporaryDirectory() as folder:
        attempts, raw, pairs = shard(images, options.captions, Path(folder))
        return run(families, attempts, raw, pairs, options.rounds, len(images))


def run(families: list[Family[Any]], attempts: Any, raw: Path, pairs: Any, rounds: int, count: int) -> int:
    """Measure and print."""
    from stages.imaging.decode import decode_rgb
    from stages.signals.measure import measure

    def passed(chosen: list[Family[Any]]) -> tuple[float, dict[str, list[Row]]]:
        start = time.process_time()
        with open(raw, "rb") as opened:
            rows = measure(chosen, attempts, opened, pairs)
        return (time.process_time() - start) * 1e3 / count, rows

    def together() -> tuple[float, dict[str, list[Row]]]:
        return passed(families)

    def separately() -> tuple[float, dict[str, list[Row]]]:
        spent = 0.0
        rows: dict[str, list[Row]] = {}
        for family in families:
            took, its = passed([family])
            alone[family.name].append(took)
            spent, rows = spent + took, {**rows, **its}
        return spent, rows

    def decode() -> float:
        content = raw.read_bytes()
        spans = zip(attempts["offset"].to_pylist(), attempts["length"].to_pylist(), strict=True)
        start = time.process_time()
        for offset, length in spans:
            decode_rgb(content[offset : offset + length])
        return (time.process_time() - start) * 1e3 / count

    alone: dict[str, list[float]] = {family.name: [] for family in families}
    ours: list[float] = []
    peer: list[float] = []
    decoding: list[float] = []
    together()  # the first pass warms caches and allocators
    for number in range(rounds):
        decoding.append(decode())
        first, second = (together(), separately()) if number % 2 == 0 else (separately(), together())
        one, many = (first, second) if number % 2 == 0 else (second, first)
        if one[1] != many[1]:
            raise SystemExit("the two ways gave different values")
        ours.append(one[0])
        peer.append(many[0])
        print(f"round {number + 1}/{rounds}: one pass {one[0]:.1f}, separate {many[0]:.1f} ms/image", file=sys.stderr)
    base = statistics.median(decoding)
    reading = {f.name for f in families if f.reads in ("image", "image and caption")}
    beyond = {name: statistics.median(v) - (base if name in reading else 0.0) for name, v in alone.items()}
    cost = {name: round(max(0.0, spent), 3) for name, spent in beyond.items()}
    print(f"{'decoding':16}{base:9.2f} ms/image")
    for name, spent in cost.items():
        print(f"{name:16}{spent:9.2f} ms/image" + (" beyond decoding" if name in reading else ""))
    inputs = {"images": count, "pairs": pairs.num_rows, "families": ", ".join(alone), "threads": 1}
    costs = {"decoding": round(base, 3), **cost}
    report("signals", ours, {"separate": peer}, unit="ms/image", better="lower", inputs=inputs, per_image_ms=costs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
