"""The real `pairmill` command on a small demonstration world, in processes that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

#: The demonstration, small: every planted fault is still there, and every stage has several partitions.
SMALL = (
    "worlds.demo.train_images=60",
    "worlds.demo.test_images=12",
    "worlds.demo.corpus_captions=3000",
    "ingest.pairs_per_file=24",
    "shard.max_samples=8",
    "tokenizer.vocabulary=1600",
    "model.vocabulary=1600",
    "train.phases=[{objective:representation,steps:10},{objective:language_modeling,steps:6}]",
    "train.global_batch=8",
    "train.micro_batch=4",
    "train.log_every=1",
    "train.loader_workers=1",
    "train.checkpoint_every=3",
    "tasks.demo_vqa.steps=4",
    "tasks.demo_vqa.global_batch=8",
    "tasks.demo_vqa.micro_batch=4",
    "tasks.demo_vqa.log_every=1",
)
DATA = ("world", "ingest", "download", "signals", "index", "select", "shard", "tokenizer", "tokens")


class Mill:
    """One workspace and the command that works on it."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.log = workspace.with_suffix(".log")

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pipelines.main", *words, *SMALL, f"workspace={self.workspace}"]
        with open(self.log, "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def run(self, *words: str) -> None:
        code = self.start(*words).wait(timeout=600)
        assert code == 0, f"exit {code}\n{self.log.read_text()[-4000:]}"

    def output(self, *words: str) -> str:
        command = [sys.executable, "-m", "pipelines.main", *words, *SMALL, f"workspace={self.workspace}"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    def status(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.output("status", "--json"))
        return rows

    def folder(self, stage: str) -> list[Path]:
        return sorted((self.workspace / "artifacts" / stage).glob("*"))

    def manifests(self) -> dict[str, str]:
        """Node folder -> manifest text of all data artifacts; the manifest holds every file's sha256."""
        found = {}
        for stage in DATA:
            for folder in self.folder(stage):
                found[f"{stage}/{folder.name}"] = (folder / "manifest.json").read_text()
        return found

    def history(self) -> list[tuple[int, float]]:
        (folder,) = self.folder("pretrain")
        lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        return [(line["step"], line["metrics"]["loss"]) for line in lines]

    def kill_when(self, process: subprocess.Popen[bytes], ready: Callable[[], bool], victim: str = "driver") -> bool:
        """SIGKILL the driver (or one Ray worker whose title holds `victim`) as soon as `ready()`; False if too late."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return False
            if ready() and (target := self._victim(process, victim)) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(target, signal.SIGKILL)
                    if victim == "driver":
                        process.wait()
                    return True
            time.sleep(0.02)
        raise AssertionError(f"never ready to be killed\n{self.log.read_text()[-4000:]}")

    def _victim(self, process: subprocess.Popen[bytes], victim: str) -> int | None:
        if victim == "driver":
            return process.pid
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                if victim in " ".join(child.cmdline()):
                    return child.pid
        return None


@pytest.fixture
def mill(tmp_path: Path) -> Callable[[str], Mill]:
    return lambda name: Mill(tmp_path / name)
