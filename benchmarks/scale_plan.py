"""What `benchmarks/scale.py` runs to plan shards and tokens as the runner does, without writing a shard.

`python benchmarks/scale_plan.py shard OVERRIDES...` plans the shards, which gathers the texts and extents of all
samples, reads those of the first shards in Ray tasks, as their workers would, and leaves the plan in the workspace;
`tokens` plans from that. The last line is a JSON object.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]


def main() -> int:
    """Plan one of the two stages."""
    stage, *overrides = sys.argv[1:]
    from pipelines.compose import load
    from pipelines.dag import build
    from pipelines.ray_session import start
    from pipelines.state import Workspace
    from pipelines.store import Store

    config = load(overrides)
    workspace = Workspace(build(config), Store(config.workspace))
    plan_file = Path(config.workspace) / "shard-plan.json"
    if stage == "tokens":
        print(json.dumps(_tokens(workspace, plan_file)))
        return 0
    start(config.cluster.cpus)
    print(json.dumps(_shards(workspace, plan_file)))
    return 0


def _shards(workspace: Any, plan_file: Path) -> dict[str, Any]:
    import ray

    from pipelines.run_partition import planned

    job = _job(workspace, workspace.dag["shard"])
    began = time.perf_counter()
    partitions = planned(job)
    took = time.perf_counter() - began
    first = partitions[: 2 * int(ray.cluster_resources()["CPU"])]
    rows = ray.get([ray.remote(_samples).remote(job, partition) for partition in first])
    gathered = sum(path.stat().st_size for path in Path(job.scratch).rglob("*") if path.is_file())
    shutil.rmtree(job.scratch)
    shards = [{"name": f"train-{partition.id}.tar", "sha256": partition.id} for partition in partitions]
    plan_file.write_text(json.dumps({"shards": shards}))
    return {"shards": len(partitions), "rows_read": sum(rows), "plan_seconds": took, "scratch_bytes": gathered}


def _samples(job: Any, partition: Any) -> int:
    """Number of samples of a shard, once a worker has read all their rows."""
    from stages.shard.gather import samples_of

    samples = samples_of(job.inputs["verdicts"][0], job.scratch)
    return sum(1 for _ in samples.rows(partition.spec["samples"]))


def _tokens(workspace: Any, plan_file: Path) -> dict[str, Any]:
    from scale_artifacts import seal

    from stages.base.artifact import Artifact

    node = workspace.dag["tokens"]
    folder = plan_file.parent / "planned-shards"
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(plan_file.read_text())
    seal(folder, {"stage": "shard", "fingerprint": "0" * 64}, {})
    began = time.perf_counter()
    partitions = node.stage(node.config).partitions({"shards": (Artifact(str(folder)),)})
    return {"shards": len(partitions), "plan_seconds": time.perf_counter() - began}


def _job(workspace: Any, node: Any) -> Any:
    """As `pipelines/runner.py` makes it."""
    from pipelines.run_partition import ArtifactJob

    inputs = {
        role: tuple(workspace.artifact(workspace.dag[parent]) for parent in parents)
        for role, parents in node.inputs.items()
    }
    scratch = workspace.store.scratch(node.stage.name, workspace.require(node))
    url = workspace.artifact_dir(node).url
    return ArtifactJob(node.id, node.stage(node.config), workspace.require(node), url, inputs, str(scratch), {})


if __name__ == "__main__":
    sys.exit(main())
