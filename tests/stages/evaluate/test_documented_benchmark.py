"""The benchmark that CONTRIBUTING.md shows, evaluated with a tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.compose import load
from pipelines.dag import build
from stages.base.artifact import Artifact
from tests.documented import ROOT, example, write


def test_the_documented_benchmark_is_evaluated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_stage: Callable[..., Artifact],
    model_artifact: Artifact,
    benchmark_files: Path,
) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    write(example("CONTRIBUTING.md", "A benchmark").files, tmp_path)
    data = tmp_path / "data"
    (data / "okvqa").mkdir(parents=True)
    (data / "coco" / "val2014").mkdir(parents=True)
    for name, public in (
        ("questions", "OpenEnded_mscoco_val2014_questions"),
        ("annotations", "mscoco_val2014_annotations"),
    ):
        shutil.copyfile(benchmark_files / f"{name}.json", data / "okvqa" / f"{public}.json")
    for image in (benchmark_files / "images").iterdir():
        shutil.copyfile(image, data / "coco" / "val2014" / f"COCO_val2014_{int(image.stem):012d}.jpg")
    monkeypatch.setenv("PAIRMILL_DATA", str(data))

    dag = build(load(["benchmark=okvqa", f"workspace={tmp_path / 'workspace'}"], conf))
    (node,) = (node for node in dag.values() if node.stage.name == "evaluate")
    stage: Any = node.stage(node.config)
    artifact = run_stage(stage, {"model": [model_artifact]})

    scores = artifact.read_json("scores.json")
    assert scores["protocol"]["n"] == 10
    assert scores["scores"]["majority_answer"]["answer"] == "no"
