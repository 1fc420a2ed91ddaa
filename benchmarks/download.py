"""How fast images are fetched: `pairmill run download` beside img2dataset's own command, on the same URLs.

Run from the project's root: `python -m benchmarks.download`. One loopback server (benchmarks/loopback.py) plays many
hosts (127.0.0.2, 127.0.0.3, ...) and serves generated photographs of 500 x 375 pixels and about 40 KB out of memory.
Both read the list from one parquet file in LAION's form, use the same number of processes and threads, put the same
number of images in a shard and write tars with tables beside them. Ours is polite as by default: robots.txt and
tdmrep.json of every host, 8 requests at a time and 20 a second per host, addresses checked; img2dataset knows none of
these.

img2dataset runs in three ways: `keep` (`--resize_mode no --skip_reencode True`: decodes each image and keeps its
bytes, as ours does), `default` (its defaults: resized to 256 x 256 and encoded again), `blind`
(`--disable_all_reencoding True`: nothing is decoded, so nothing is checked). Reported is the whole command, from the
shell to its exit, start of Python, Ray and MLflow included; and in `work_only` the images a second between the first
request and the last, as the server saw them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.common import compare, report, seconds  # noqa: E402

WAYS = {
    "keep": ["--resize_mode", "no", "--skip_reencode", "True"],
    "default": [],
    "blind": ["--disable_all_reencoding", "True"],
}
WIDTH, HEIGHT = 500, 375


def photographs(folder: Path, count: int = 64) -> float:
    """Write `count` JPEGs that cost what a photograph costs; returns their mean size in bytes."""
    import numpy as np
    from PIL import Image

    sizes = []
    for number in range(count):
        random = np.random.default_rng(number)
        # Detail at every scale, as in photographs: noise of several grain sizes, the coarser the stronger.
        pixels = np.full((HEIGHT, WIDTH, 3), 128.0)
        for grain, strength in ((1, 9), (4, 12), (16, 20), (64, 45)):
            coarse = random.normal(128, strength, (HEIGHT // grain + 2, WIDTH // grain + 2, 3)).clip(0, 255)
            layer = Image.fromarray(coarse.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            pixels += np.asarray(layer, dtype=float) - 128
        out = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=80)
        (folder / f"{number:03}.jpg").write_bytes(out.getvalue())
        sizes.append(len(out.getvalue()))
    return sum(sizes) / len(sizes)


@contextmanager
def serving(folder: Path, hosts: int) -> Iterator[int]:
    """The port of a running server."""
    script = Path(__file__).with_name("loopback.py")
    command = [sys.executable, str(script), str(folder), str(hosts)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()


def write_list(path: Path, images: int, hosts: int, port: int) -> None:
    """A list in LAION's form that names the hosts in turn."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    urls = [f"http://127.0.0.{2 + n % hosts}:{port}/{n}.jpg" for n in range(images)]
    columns = {"URL": urls, "TEXT": [f"photograph number {n} of the list" for n in range(images)]}
    pq.write_table(pa.table({**columns, "WIDTH": [WIDTH] * images, "HEIGHT": [HEIGHT] * images}), path)


class Race:
    """Both commands over one list, each run in a folder of its own."""

    def __init__(self, root: Path, port: int, arguments: argparse.Namespace) -> None:
        self.root = root
        self.port = port
        self.arguments = arguments
        self.list = root / "list.parquet"
        self.work: dict[str, list[float]] = {}
        self.runs = 0

    def ours(self) -> float:
        """Images a second of the whole command; ingest has run before."""
        workspace = self._folder()
        self._pairmill("ingest", workspace)
        whole = seconds(lambda: self._pairmill("download", workspace))
        (manifest,) = workspace.glob("artifacts/download/*/manifest.json")
        counts = json.loads(manifest.read_text())["counts"]
        return self._noted("ours", whole, counts["success"], workspace)

    def peer(self, way: str) -> Callable[[], float]:
        """The same of img2dataset, in one of :data:`WAYS`."""

        def run() -> float:
            folder = self._folder()
            whole = seconds(lambda: self._img2dataset(way, folder))
            fetched = sum(json.loads(path.read_text())["successes"] for path in folder.glob("*_stats.json"))
            return self._noted(way, whole, fetched, folder)

        return run

    def _noted(self, who: str, whole: float, fetched: int, folder: Path) -> float:
        if fetched != self.arguments.images:
            raise SystemExit(f"{who}: only {fetched} of {self.arguments.images} images were fetched")
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/seconds") as answer:
            self.work.setdefault(who, []).append(fetched / float(answer.read()))
        shutil.rmtree(folder)
        return float(fetched / whole)

    def _folder(self) -> Path:
        self.runs += 1
        return self.root / f"run-{self.runs}"

    def _pairmill(self, stage: str, workspace: Path) -> None:
        words = [
            *("world=[]", "source=[]", "task=[]", "benchmark=[]", "held_out=[]", "tokenizer=bpe_50k"),
            *("++sources.race.kind=laion", f"++sources.race.paths=[{self.list}]"),
            f"ingest.pairs_per_file={self.arguments.shard}",
            f"download.threads={self.arguments.threads}",
            "download.allow_private_hosts=[127.0.0.0/8]",
            f"cluster.cpus={self.arguments.processes}",
            f"workspace={workspace}",
        ]
        self._run([sys.executable, "-m", "pipelines.main", "run", stage, *words])

    def _img2dataset(self, way: str, folder: Path) -> None:
        options = {
            "url_list": self.list,
            "input_format": "parquet",
            "url_col": "URL",
            "caption_col": "TEXT",
            "output_format": "webdataset",
            "output_folder": folder,
            "processes_count": self.arguments.processes,
            "thread_count": self.arguments.threads,
            "number_sample_per_shard": self.arguments.shard,
            "enable_wandb": "False",
        }
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        self._run([self.arguments.img2dataset, *words, *WAYS[way]])

    def _run(self, command: list[str]) -> None:
        # Without the first variable albumentations asks the web for its newest version.
        environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            raise SystemExit(
                f"{' '.join(command[:4])} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
            )


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="URLs in the list (default: 5000)")
    parser.add_argument("--hosts", type=int, default=100, help="hosts they are spread over, at most 250 (default: 100)")
    parser.add_argument("--shard", type=int, default=500, help="images per shard, both (default: 500)")
    parser.add_argument("--processes", type=int, default=2, help="processes, both (default: 2)")
    parser.add_argument("--threads", type=int, default=64, help="threads per process, both (default: 64)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="ways to run img2dataset")
    beside = Path(sys.executable).with_name("img2dataset")
    parser.add_argument("--img2dataset", default=str(beside), help="its command (default: the one beside this Python)")
    return parser.parse_args()


def main() -> None:
    """Race, then report both measures; the JSON of the last line has the second under `work_only`."""
    arguments = options()
    with tempfile.TemporaryDirectory(prefix="download-benchmark-") as name:
        root = Path(name)
        (root / "photographs").mkdir()
        mean = photographs(root / "photographs")
        with serving(root / "photographs", arguments.hosts) as port:
            race = Race(root, port, arguments)
            write_list(race.list, arguments.images, arguments.hosts, port)
            inputs: dict[str, Any] = {key: value for key, value in vars(arguments).items() if key != "img2dataset"}
            inputs |= {"picture": f"{WIDTH}x{HEIGHT} JPEG", "mean_bytes": round(mean), "img2dataset": version()}
            peers = {f"img2dataset {way}": race.peer(way) for way in arguments.ways}
            whole = compare(
                "download",
                race.ours,
                peers,
                arguments.repeats,
                "images/s, whole command",
                "higher",
                inputs,
                finish=False,
            )
    work = {f"img2dataset {way}": race.work[way] for way in arguments.ways}
    only = report(
        "download, work only", race.work["ours"], work, "images/s, first request to last", "higher", finish=False
    )
    print(json.dumps({**whole, "work_only": {key: only[key] for key in ("unit", "ours", "peers", "ratios")}}))


def version() -> str:
    """The peer's."""
    from importlib.metadata import version

    return version("img2dataset")


if __name__ == "__main__":
    main()
