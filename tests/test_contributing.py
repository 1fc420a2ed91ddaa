"""The examples of CONTRIBUTING.md, run as they stand there: in a copy of the code, with a package of one's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.documented import ROOT, apply, example, write

pytestmark = pytest.mark.end_to_end

PAGE = "CONTRIBUTING.md"
CAPTIONS = """red.png#0\tA red wall .
red.png#1\tA wall that is as red as a wall can be .
grey.png#0\tA grey wall in the rain .
a line without a tab
"""
#: Nothing of the demonstration, two CPUs, no MLflow.
ALONE = (
    "world=[]",
    "task=[]",
    "benchmark=[]",
    "held_out=[]",
    "tokenizer=bpe_50k",
    "cluster.cpus=2",
    "tracking.enabled=false",
)


class Checkout:
    """A contributor's copy of the code and their package, with the examples added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.workspace = folder / "workspace"
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("pipelines", "stages", "models", "conf"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=ignored)
        package, site = folder / "extras", folder / "site"
        for title in ("A source", "A signal", "A selection", "A benchmark", "A stage"):
            shown = example(PAGE, title)
            inside = {name for name in shown.files if name.split("/")[0] in ("conf", "stages")}
            write({name: text for name, text in shown.files.items() if name in inside}, self.folder)
            write({name: text for name, text in shown.files.items() if name not in inside}, package)
            apply(shown.edits, self.folder)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "--target", str(site), str(package)], check=True, capture_output=True, timeout=120)
        data = folder / "data" / "flickr8k"
        self._write_data(data)
        self.environment = {
            **os.environ,
            # The copy shadows the installed project, in Ray's workers too.
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(site)]),
            "PAIRMILL_DATA": str(data.parent),
        }

    @staticmethod
    def _write_data(folder: Path) -> None:
        from PIL import Image

        (folder / "images").mkdir(parents=True)
        for name, colour in (("red", (255, 0, 0)), ("grey", (90, 90, 90))):
            Image.new("RGB", (64, 64), colour).save(folder / "images" / f"{name}.png")
        (folder / "Flickr8k.token.txt").write_text(CAPTIONS)

    def run(self, title: str) -> None:
        """Run the commands that the page shows below a heading."""
        commands = example(PAGE, title).commands
        assert commands
        for program, *words in commands:
            assert program == "pairmill"
            subprocess.run(
                [sys.executable, "-m", "pipelines.main", *words, *ALONE, f"workspace={self.workspace}"],
                env=self.environment,
                cwd=self.folder,
                check=True,
                timeout=300,
            )

    def rows(self, stage: str, pattern: str) -> list[dict[str, Any]]:
        """All rows of the tables of a stage."""
        return [row for path in self.files(stage, pattern) for row in pq.read_table(path).to_pylist()]

    def files(self, stage: str, pattern: str) -> list[Path]:
        """Files of a stage's artifacts, sorted."""
        return sorted((self.workspace / "artifacts" / stage).rglob(pattern))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("contributor"))


def test_the_source_is_read(checkout: Checkout) -> None:
    checkout.run("A source")
    pairs = checkout.rows("ingest", "pairs-*.parquet")
    assert sorted((pair["path"], pair["caption"]) for pair in pairs) == [
        ("grey.png", "A grey wall in the rain ."),
        ("red.png", "A red wall ."),
        ("red.png", "A wall that is as red as a wall can be ."),
    ]
    assert [reject["reason"] for reject in checkout.rows("ingest", "rejects.parquet")] == ["no_tab"]


@pytest.mark.slow
def test_the_signal_is_measured(checkout: Checkout) -> None:
    checkout.run("A signal")
    images = checkout.rows("signals", "images-*.parquet")
    assert sorted(image["saturation"] for image in images) == [0, 255]


@pytest.mark.slow
def test_the_selection_keeps_what_it_describes(checkout: Checkout) -> None:
    checkout.run("A selection")
    verdicts = checkout.rows("select", "verdicts-*.parquet")
    assert sorted((verdict["keep"], verdict["reason"]) for verdict in verdicts) == [
        (False, "rule.saturation"),
        (True, ""),
        (True, ""),
    ]


@pytest.mark.slow
def test_the_stage_makes_its_artifact(checkout: Checkout) -> None:
    checkout.run("A stage")
    (lengths,) = checkout.files("caption_lengths", "lengths.json")
    assert json.loads(lengths.read_text()) == {"4": 1, "7": 1, "10": 1}


def test_the_examples_pass_the_linter(checkout: Checkout) -> None:
    """Of the repository's own code: a stage would be part of it."""
    folder = checkout.folder / "stages" / "caption_lengths"
    for command in (["format", "--check"], ["check"]):
        ruff = [Path(sys.executable).with_name("ruff"), *command, "--no-cache", "--config", ROOT / "pyproject.toml"]
        done = subprocess.run([*map(str, ruff), str(folder)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
