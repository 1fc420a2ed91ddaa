"""The data side at 10^5, 10^6 and 10^7 rows: wall time and peak memory of every stage, by process.

Inputs: synthetic LAION-like Parquet lists of two sources, which the real ingest reads, and the artifacts of `download`
and `signals` that would follow, written directly (`scale_artifacts.py` states what the rows are like); everything after
them is made by the real commands: `pairmill run index`, `run select` twice (another minimal side), `pairmill report
--against previous`, `pairmill why`, `run tokenizer`, and the plans of shards and tokens (`scale_plan.py`; no pictures,
so no shards). MLflow is off.

Memory is the proportional set size of each process, sampled four times a second (`process_memory.py`): `driver`, the
largest `worker`, and the whole `tree` at one moment with Ray's object store and without its daemons. `anonymous` leaves
out pages of files. Seconds are those of the whole command, start of Python and Ray included; `stage_seconds` those of
the stage in it; `cpu_seconds` those of the processors, which a busy machine does not stretch.

Ends with one JSON object: `name`, `machine`, `rows` (number -> stage -> figures), `growth` (peaks at the last number of
rows over those at the one before).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from common import machine  # noqa: E402
from process_memory import measured  # noqa: E402

#: Share of the rows that each source lists.
SOURCES = {"laion": 0.9, "laion_aesthetics": 0.1}
MEASURED = ("ingest", "index", "select", "reselect", "report", "why", "shard_plan", "tokens_plan", "tokenizer")
_PEAKS = ("driver", "worker", "tree", "driver_anonymous", "worker_anonymous")


class Failed(Exception):
    """A command ended with an error; its last lines."""


class Bench:
    """A workspace for one number of rows."""

    def __init__(self, folder: Path, rows: int, args: argparse.Namespace) -> None:
        self.folder = folder
        self.rows = rows
        self.args = args
        self.workspace = folder / "workspace"
        self.saved = folder / "figures.json"
        self.figures: dict[str, dict[str, Any]] = json.loads(self.saved.read_text()) if self.saved.exists() else {}

    def overrides(self, side: int = 200) -> list[str]:
        """The config; another `side` is another selection."""
        return [
            f"workspace={self.workspace}",
            "world=[]",
            f"source=[{','.join(SOURCES)}]",
            *(f"sources.{name}.paths=[{self.folder / 'lists' / name}/*.parquet]" for name in SOURCES),
            "selection=datacomp_basic",
            "selection.duplicates={exact: true, near: {radius: 8}}",
            f"selection.rules.min_side={side}",
            "held_out=[]",
            "task=[]",
            "benchmark=[]",
            "tokenizer.text=[]",
            "tokenizer.allow_smaller=true",
            f"cluster.cpus={self.args.cpus}",
            "tracking.enabled=false",
            *self.args.override,
        ]

    def run(self) -> None:
        """All stages in order that have no figures yet; an error ends it, with its message among the figures."""
        stages: dict[str, Callable[[], dict[str, Any]]] = {
            "lists": self._lists,
            "ingest": lambda: self._pairmill("ingest", ["run", "ingest", *self.overrides()]),
            "artifacts": self._artifacts,
            "index": lambda: self._pairmill("index", ["run", "index", *self.overrides()]),
            "select": lambda: self._pairmill("select", ["run", "select", *self.overrides()]),
            "reselect": lambda: self._pairmill("reselect", ["run", "select", *self.overrides(256)]),
            "report": lambda: self._pairmill("report", ["report", "--against", "previous", *self.overrides(256)]),
            "why": self._why,
            "shard_plan": lambda: self._plan("shard"),
            "tokens_plan": lambda: self._plan("tokens"),
            "tokenizer": lambda: self._pairmill("tokenizer", ["run", "tokenizer", *self.overrides()]),
        }
        for name, stage in stages.items():
            if name in self.args.skip or name in self.figures:
                continue
            try:
                self.figures[name] = stage()
            except Failed as failure:
                self.figures[name] = {"failed": str(failure)}
            self.saved.write_text(json.dumps(self.figures))
            print(f"{self.rows:,} rows: {name}: {json.dumps(self.figures[name])}", file=sys.stderr, flush=True)
            if "failed" in self.figures[name] and name in ("ingest", "index", "select"):
                return

    def _lists(self) -> dict[str, Any]:
        began = time.perf_counter()
        self._web().write_lists(self.folder / "lists", self.args.cpus)
        return {"seconds": time.perf_counter() - began, "bytes": _size(self.folder / "lists")}

    def _artifacts(self) -> dict[str, Any]:
        from scale_artifacts import seal

        from pipelines.compose import load
        from pipelines.dag import build
        from pipelines.fingerprint import fingerprinted
        from pipelines.state import Workspace
        from pipelines.store import Store

        began = time.perf_counter()
        config = load(self.overrides())
        workspace = Workspace(build(config), Store(config.workspace))
        dag, web = workspace.dag, self._web()
        for name in SOURCES:
            pairs, raw, signals = (dag[f"{stage}[{name}]"] for stage in ("ingest", "download", "signals"))
            folders = [Path(workspace.artifact_dir(node).url) for node in (pairs, raw, signals)]
            for folder in folders[1:]:
                folder.mkdir(parents=True, exist_ok=True)
            counts = web.write_measured(*folders, workers=self.args.cpus)
            for node, folder, counted in zip((raw, signals), folders[1:], counts, strict=True):
                identity = {
                    "stage": node.stage.name,
                    "node": node.id,
                    "version": node.stage.version,
                    "fingerprint": workspace.require(node),
                    "config": fingerprinted(node.config),
                    "inputs": {role: [workspace.require(dag[i]) for i in ids] for role, ids in node.inputs.items()},
                }
                seal(folder, identity, counted)
                workspace.store.set_latest(node.id, workspace.record(node))
        sizes = {stage: _size(self.workspace / "artifacts" / stage) for stage in ("ingest", "download", "signals")}
        return {"seconds": time.perf_counter() - began, "bytes": sizes}

    def _web(self) -> Any:
        from scale_artifacts import Web

        from pipelines.compose import load

        return Web(self.rows, SOURCES, load(self.overrides()).signals)

    def _pairmill(self, name: str, command: list[str]) -> dict[str, Any]:
        figures = self._measured(name, [sys.executable, "-m", "pipelines.main", *command])
        if command[0] == "run":
            # Of several sources the stage's time is the longest one's.
            runs = sorted((self.workspace / "artifacts" / command[1]).glob("*/run.json"), key=os.path.getmtime)
            newest = runs[-len(SOURCES) :] if name == "ingest" else runs[-1:]
            figures["stage_seconds"] = max(json.loads(run.read_text())["seconds"] for run in newest)
            figures["artifact_bytes"] = sum(_size(run.parent) for run in newest)
            if name in ("index", "select", "reselect"):
                figures["counts"] = json.loads((newest[0].parent / "manifest.json").read_text())["counts"]
        return figures

    def _why(self) -> dict[str, Any]:
        import pyarrow.parquet as pq

        file = min((self.workspace / "artifacts" / "ingest").glob("laion-*/pairs-*.parquet"))
        uid = pq.ParquetFile(file).read_row_group(0, columns=["uid"])["uid"][0].as_py()
        return self._pairmill("why", ["why", uid, *self.overrides()])

    def _plan(self, stage: str) -> dict[str, Any]:
        script = str(Path(__file__).with_name("scale_plan.py"))
        figures = self._measured(f"{stage}_plan", [sys.executable, script, stage, *self.overrides()])
        last = (self.folder / f"{stage}_plan.log").read_text("utf-8", "replace").strip().splitlines()[-1]
        return figures | json.loads(last)

    def _measured(self, name: str, command: list[str]) -> dict[str, Any]:
        hushed = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "hf"), "HOME": str(self.folder)}
        log = self.folder / f"{name}.log"
        threads = {"OMP_NUM_THREADS": str(self.args.cpus)}
        run = measured(command, log, ROOT, {**os.environ, **hushed, **threads})
        figures: dict[str, Any] = {"seconds": round(run.seconds, 2), "cpu_seconds": round(run.cpu_seconds, 2)}
        peaks = asdict(run.peaks)
        figures |= {f"peak_{key}_mb": round(peaks[key], 1) for key in (*_PEAKS, "store", "daemons")}
        figures["workers"] = run.peaks.processes
        if run.code:
            lines = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
            raise Failed(f"ended with {run.code} after {run.seconds:.0f} s, {json.dumps(figures)}: {' | '.join(lines)}")
        return figures


def growth(less: Mapping[str, Mapping[str, Any]], more: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Stage -> how many times as much each peak is, and the seconds."""
    ratios: dict[str, dict[str, float]] = {}
    keys = ["seconds", *(f"peak_{key}_mb" for key in _PEAKS)]
    for stage in less:
        if "failed" in less[stage] or "failed" in more.get(stage, {"failed": ""}):
            continue
        ratios[stage] = {key: round(more[stage][key] / less[stage][key], 3) for key in keys if less[stage][key]}
    return ratios


def main() -> int:
    """Run all sizes, print a table and the JSON."""
    args = _arguments()
    results: dict[int, dict[str, dict[str, Any]]] = {}
    for rows in args.rows:
        folder = Path(args.folder or tempfile.mkdtemp(prefix="pairmill-scale-"), str(rows))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            bench = Bench(folder, rows, args)
            bench.run()
            results[rows] = {name: bench.figures[name] for name in MEASURED if name in bench.figures}
        finally:
            if not args.keep:
                shutil.rmtree(folder, ignore_errors=True)
    _print(results)
    grown = growth(results[args.rows[-2]], results[args.rows[-1]]) if len(args.rows) > 1 else {}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    print(
        json.dumps(
            {
                "name": "scale",
                "machine": {**machine(), "memory_gb": round(_memory_gb(), 1), "ray_cpus": args.cpus},
                "commit": commit.stdout.strip() or None,
                "rows": results,
                "growth": grown,
            }
        ),
        flush=True,
    )
    return int(any("failed" in stage for stages in results.values() for stage in stages.values()))


def _print(results: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> None:
    heads = ("seconds", "CPU s", "driver MB", "worker MB", "tree MB", "driver anon.", "worker anon.")
    print(f"{'rows':>12} {'stage':12} " + " ".join(f"{head:>10}" for head in heads))
    for rows, stages in results.items():
        for stage, figures in stages.items():
            if "failed" in figures:
                print(f"{rows:12,} {stage:12} failed: {figures['failed'][:120]}")
                continue
            shown = ("seconds", "cpu_seconds", *(f"peak_{key}_mb" for key in _PEAKS))
            numbers = " ".join(
                f"{figures.get(key, 0):{max(10, len(head))}.0f}" for key, head in zip(shown, heads, strict=True)
            )
            print(f"{rows:12,} {stage:12} {numbers}")


def _size(folder: Path) -> int:
    """Bytes below a folder; names of one file count once."""
    files = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return sum(files.values())


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[100_000, 1_000_000, 10_000_000],
        help="rows listed (default %(default)s)",
    )
    parser.add_argument("--cpus", type=int, default=2, help="CPUs of Ray (default %(default)s)")
    parser.add_argument("--folder", default=None, help="where the files go (about 2 GB per million rows)")
    parser.add_argument(
        "--keep", action="store_true", help="leave the files; the next run in that folder goes on there"
    )
    parser.add_argument("--skip", nargs="*", default=[], help="stages that are not run")
    parser.add_argument("--override", nargs="*", default=[], help="further keys of the configuration, KEY=VALUE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
