"""Fingerprints keep their digits: a renamed class, module or docstring must not make anyone's workspace stale.

`golden/fingerprints.json` holds the fingerprint of every node of three configurations. Two are the demonstration. The
third reads files of one's own through all kinds of configuration that name some; the files are made here, since what a
fingerprint takes is their contents. Where a change is meant to move fingerprints, CHANGELOG.md says so and the file is
written anew: ``python -m pytest tests/pipelines/test_pinned_fingerprints.py --pin-fingerprints``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.compose import load
from pipelines.dag import build
from pipelines.state import Workspace
from pipelines.store import Store

GOLDEN = Path(__file__).parent / "golden" / "fingerprints.json"

#: Configuration -> what is said on the command line.
OVERRIDES = {
    "demo_blip2": [],
    "demo_florence2": ["model=florence2_tiny"],
    "own_files": [
        "model=florence2_xl",
        "world=[]",
        "source=[laion,cc12m,coco,karpathy,table,folder,medical]",
        "sources.cc12m.hashes=[data/cc12m_hashes.tsv]",
        "sources.coco.images=data/coco/train2014",
        "tokenizer=own",
        "tokenizer.folder=data/opt",
        "signals.clip.model=data/clip",
        "task=[vqa,captions,refcoco]",
        "benchmark=[vqav2,nocaps,coco_captions,flickr30k]",
        "held_out=[vqav2,nocaps,coco_captions,flickr30k]",
        "selection=laion5b",
    ],
}
#: Files of one's own; each holds its own name.
FILES = (
    "laion/part-0.parquet",
    "cc12m/cc12m.tsv",
    "cc12m_hashes.tsv",
    "coco/annotations/captions_train2017.json",
    "coco/annotations/captions_train2014.json",
    "coco/annotations/dataset_coco.json",
    "coco/train2014/COCO_train2014_000000000001.jpg",
    "coco/val2014/COCO_val2014_000000000002.jpg",
    "karpathy/dataset_coco.json",
    "table/pairs.csv",
    "folder/a.jpg",
    "folder/a.txt",
    "medical/images/scan.dcm",
    "medical/reports.csv",
    "opt/tokenizer.json",
    "clip/config.json",
    "vqav2/v2_OpenEnded_mscoco_train2014_questions.json",
    "vqav2/v2_mscoco_train2014_annotations.json",
    "vqav2/v2_OpenEnded_mscoco_val2014_questions.json",
    "vqav2/v2_mscoco_val2014_annotations.json",
    "refcoco/train.json",
    "nocaps/nocaps_val_4500_captions.json",
    "nocaps/images/0001.jpg",
    "flickr30k/dataset_flickr30k.json",
    "flickr30k/images/1.jpg",
)


def fingerprints(name: str) -> dict[str, str]:
    """Node id -> fingerprint of one configuration, in the folder that holds `data/`."""
    config = load(OVERRIDES[name])
    workspace = Workspace(build(config), Store(config.workspace))
    return {node.id: workspace.require(node) for node in workspace.dag.values()}


@pytest.mark.parametrize("name", OVERRIDES)
def test_fingerprints_are_those_of_before(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PAIRMILL_DATA", raising=False)
    for file in FILES:
        Path("data", file).parent.mkdir(parents=True, exist_ok=True)
        Path("data", file).write_text(file)
    found = fingerprints(name)
    pinned = json.loads(GOLDEN.read_text("utf-8")) if GOLDEN.exists() else {}
    if pytestconfig.getoption("--pin-fingerprints"):
        GOLDEN.write_text(json.dumps({**pinned, name: found}, indent=1) + "\n", "utf-8")
        pinned[name] = found
    assert found == pinned[name]
