"""Re-selecting a million measured pairs after a threshold changed: `pairmill run select` beside data-juicer.

Inputs: a synthetic pool of `--rows` images with a pair each in four sources (`selection_index.py`: 12% not fetched,
exact and near copies, benchmark images and texts), written as the artifacts that `select` reads. Every round asks for
another minimal side, so nothing can be reused.

Ours is the whole command: start of Python and Ray, rules, decontamination, exact and near duplicates, verdicts, report
and data card (MLflow is off, since the peer tracks nothing); `stage_seconds` are those of the stage in it. The peer is
data-juicer's own `dj-process` (text length, word count, image shape, aspect ratio, language, similarity) over the
fetched pairs, with all statistics precomputed; it looks for no copies and writes the kept rows alone. Both use `--cpus`
processes. That the rules keep equally many pairs is checked in every round.

The peer in an environment of its own: `pip install py-data-juicer==1.6.1 aiohttp torch` (it installs what it misses
while it runs; a run in which it does is refused).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from common import compare, report, seconds  # noqa: E402
from selection_index import Pool, seal  # noqa: E402

SOURCES = ("demo_laion", "demo_cc3m", "demo_cc12m", "demo_coco")
#: The bounds both apply, besides the minimal side.
RULES: dict[str, Any] = {
    "min_characters": 6,
    "min_words": 3,
    "max_aspect_ratio": 3.0,
    "languages": ["en"],
    "min_similarity": 0.28,
}


def main() -> int:
    """Build the pool, measure in turns, print the figures."""
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="pairmill-selection-", dir=args.folder) as name:
        bench = Bench(Path(name), args)
        print(f"building a pool of {args.rows:,} pairs", file=sys.stderr, flush=True)
        took = seconds(bench.build)
        print(f"built in {took:.0f} s", file=sys.stderr, flush=True)
        inputs = {
            "pairs": args.rows,
            "sources": len(SOURCES),
            "processes": args.cpus,
            "rules": {**RULES, "min_side": 200},
        }
        inputs["stage_seconds"] = bench.stage_seconds  # filled while it runs
        if args.peer_python is None:
            print("data-juicer: skipped; name a Python that has py-data-juicer with --peer-python", file=sys.stderr)
            report("selection", [bench.ours() for _ in range(args.rounds)], {}, inputs=inputs)
            return 0
        inputs["peer"] = f"dj-process of py-data-juicer over {bench.peer_rows:,} fetched pairs, statistics precomputed"
        compare("selection", bench.ours, {"data-juicer": bench.peer}, repeats=args.rounds, inputs=inputs)
    return 0


class Bench:
    """A workspace with the synthetic artifacts, and one run of ours or of the peer at a time."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.folder = folder
        self.args = args
        self.stage_seconds: list[float] = []
        self.kept: dict[int, set[int]] = {}
        self.peer_rows = 0
        self.rounds = {"ours": 0, "peer": 0}

    def overrides(self, side: int) -> list[str]:
        """The config of a round."""
        rules = {**RULES, "min_side": side}
        return [
            f"workspace={self.folder / 'workspace'}",
            f"source=[{','.join(SOURCES)}]",
            "selection=datacomp_basic",
            "selection.duplicates={exact: true, near: {radius: 8}}",
            *(f"selection.rules.{key}={json.dumps(value)}" for key, value in rules.items()),
            f"cluster.cpus={self.args.cpus}",
            "tracking.enabled=false",
        ]

    def build(self) -> None:
        """Write the artifacts where the config looks for them."""
        from pipelines.compose import load
        from pipelines.dag import build
        from pipelines.fingerprint import fingerprinted
        from pipelines.state import Workspace
        from pipelines.store import Store

        config = load(self.overrides(200))
        workspace = Workspace(build(config), Store(config.workspace))
        dag = workspace.dag
        inputs = dag["select"].inputs

        def artifact_dir(node: str) -> Path:
            folder = Path(workspace.artifact_dir(dag[node]).url)
            folder.mkdir(parents=True, exist_ok=True)
            return folder

        pool = Pool(self.args.rows, list(SOURCES))
        extents: list[tuple[int, int]] = []
        for number, (pairs, raw) in enumerate(zip(inputs["pairs"], inputs["raw"], strict=True)):
            extents = pool.write_source(number, artifact_dir(pairs), artifact_dir(raw)) or extents
        pool.write_index(artifact_dir(inputs["index"][0]), extents, self.args.range_rows)
        for node in [*inputs["pairs"], *inputs["raw"], *inputs["index"]]:
            counts = {"rows": self.args.rows, "pairs": self.args.rows}
            mark = workspace.require(dag[node])
            seal(artifact_dir(node), dag[node].stage.name, mark, fingerprinted(dag[node].config), counts)
        if self.args.peer_python:
            self._write_peer(pool)

    def ours(self) -> float:
        """Seconds of `pairmill run select` with the next minimal side."""
        side = 200 + self.rounds["ours"]
        self.rounds["ours"] += 1
        command = [sys.executable, "-m", "pipelines.main", "run", "select", *self.overrides(side)]
        took = seconds(partial(self._run, command, self.folder / "ours.log"))
        newest = max((self.folder / "workspace" / "artifacts" / "select").glob("*/run.json"), key=os.path.getmtime)
        self.stage_seconds.append(json.loads(newest.read_text())["seconds"])
        counts = json.loads((newest.parent / "manifest.json").read_text())["counts"]
        lost = sum(n for key, n in counts.items() if key.startswith(("dropped.download.", "dropped.rule.")))
        self._agree(side, counts["pairs"] - lost)
        print(f"  the stage alone: {self.stage_seconds[-1]:.2f} s", file=sys.stderr, flush=True)
        return took

    def peer(self) -> float:
        """Seconds of `dj-process` with the next minimal side."""
        side = 200 + self.rounds["peer"]
        self.rounds["peer"] += 1
        out = self.folder / f"peer-{side}"
        rules = [
            {"text_length_filter": {"min_len": RULES["min_characters"]}},
            {"words_num_filter": {"min_num": RULES["min_words"]}},
            {"image_shape_filter": {"min_width": side, "min_height": side}},
            {"image_aspect_ratio_filter": {"min_ratio": 0.0, "max_ratio": RULES["max_aspect_ratio"]}},
            {"specified_field_filter": {"field_key": "language", "target_value": RULES["languages"]}},
            {"specified_numeric_field_filter": {"field_key": "similarity", "min_value": RULES["min_similarity"]}},
        ]
        config = {
            "project_name": "selection",
            "dataset_path": str(self.folder / "peer.parquet"),
            "export_path": str(out / "kept.jsonl"),
            "np": self.args.cpus,
            "text_keys": "text",
            "open_tracer": False,
            "use_cache": False,
            "process": rules,
        }
        path = self.folder / f"peer-{side}.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        command = [str(Path(self.args.peer_python).with_name("dj-process")), "--config", str(path)]
        took = seconds(partial(self._run, command, self.folder / "peer.log"))
        if "Downloading " in (self.folder / "peer.log").read_text("utf-8", "replace"):
            raise SystemExit("data-juicer installed packages while it ran, which is no measurement: run again")
        with open(out / "kept.jsonl", "rb") as kept:
            self._agree(side, sum(1 for _ in kept))
        return took

    def _write_peer(self, pool: Pool) -> None:
        """The fetched pairs with data-juicer's own statistics in its own column."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = np.flatnonzero(pool.fetched[pool.image_of])
        image = pool.image_of[rows]
        width, height = pool.width[image], pool.height[image]
        one = pa.array(np.arange(len(rows) + 1, dtype=np.int32))
        ratio = np.maximum(width, height) / np.minimum(width, height)  # ours is long over short, and so is this one
        stats = {
            "text_len": pa.array(pool.captions["characters"][rows].astype(np.int64)),
            "num_words": pa.array(pool.captions["words"][rows].astype(np.int64)),
            "image_width": pa.ListArray.from_arrays(one, pa.array(width.astype(np.int64))),
            "image_height": pa.ListArray.from_arrays(one, pa.array(height.astype(np.int64))),
            "aspect_ratios": pa.ListArray.from_arrays(one, pa.array(ratio)),
        }
        # A pair without a score passes ours; here it has one that passes.
        similarity = np.where(pool.scored[rows], pool.captions["similarity"][rows], np.float32(1))
        low = np.float32(RULES["min_similarity"])
        similarity = np.where(
            similarity >= low, np.maximum(similarity.astype(np.float64), RULES["min_similarity"]), 0.0
        )
        table = {
            "uid": pool.uids[rows],
            "text": ["a caption"] * len(rows),
            "language": pool.captions["language"][rows],
            "similarity": similarity,
            "__dj__stats__": pa.StructArray.from_arrays(list(stats.values()), names=list(stats)),
        }
        pq.write_table(pa.table(table), self.folder / "peer.parquet")
        self.peer_rows = len(rows)

    def _agree(self, side: int, kept: int) -> None:
        seen = self.kept.setdefault(side, set())
        seen.add(kept)
        if len(seen) > 1:
            raise SystemExit(f"the rules keep different numbers of pairs at min_side={side}: {sorted(seen)}")

    def _run(self, command: list[str], log: Path) -> None:
        hushed = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "hf"), "HOME": str(self.folder)}
        threads = {"OMP_NUM_THREADS": str(self.args.cpus)}
        with open(log, "wb") as out:
            done = subprocess.run(command, stdout=out, stderr=out, cwd=ROOT, env={**os.environ, **hushed, **threads})
        if done.returncode:
            raise SystemExit(
                f"{' '.join(command[:4])} ended with {done.returncode}:\n{log.read_text('utf-8', 'replace')[-3000:]}"
            )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="pairs in the pool (default %(default)s)")
    parser.add_argument("--range-rows", type=int, default=1_000_000, help="pairs in a range (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default %(default)s)")
    parser.add_argument("--cpus", type=int, default=2, help="processes of each (default %(default)s)")
    parser.add_argument("--peer-python", default=None, help="a Python that has py-data-juicer; without it, ours alone")
    parser.add_argument("--folder", default=None, help="where the pool is built (about 1 GB per million pairs)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
