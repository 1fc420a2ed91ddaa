"""Lineage follows manifests, whatever configuration made an artifact."""

from __future__ import annotations

from typing import Any

from pipelines.lineage import Lineage


def test_descendants_come_after_their_parents_and_end_at_strangers(mill: Any) -> None:
    shards = mill.of("shard").fingerprint
    mill.train("pretrain[a]", "a" * 64, {"shards": [shards]})
    mill.train("finetune[a/vqa]", "b" * 64, {"model": ["a" * 64]})
    mill.train("pretrain[z]", "c" * 64, {"shards": ["d" * 64]})
    lineage = Lineage(mill.store)
    assert [m.node for m in lineage.models([shards])] == ["pretrain[a]", "finetune[a/vqa]"]
    assert [m.registered for m in lineage.models([shards])] == ["pairmill-a", "pairmill-a-vqa"]
    world = mill.of("world").fingerprint
    nodes = [a.manifest["node"] for a in lineage.descendants([world])]
    assert nodes.index("ingest[demo_coco]") < nodes.index("index") < nodes.index("tokens")
    assert "pretrain[z]" not in nodes


def test_unfinished_artifacts_are_places_but_no_parents(mill: Any) -> None:
    artifact_dir = mill.store.artifact_dir("shard", "", "f" * 64)
    artifact_dir.write("_plan.json", "[]")
    lineage = Lineage(mill.store)
    assert artifact_dir.url in [p.url for p in lineage.artifact_dirs]
    assert len(lineage.of_stage("shard")) == 1


def test_an_empty_workspace_has_nothing(tmp_path: Any) -> None:
    from pipelines.store import Store

    lineage = Lineage(Store(str(tmp_path / "none")))
    assert (lineage.artifact_dirs, lineage.models(["a" * 64])) == ([], [])
