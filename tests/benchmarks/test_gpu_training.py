"""The benchmark of training speed runs at toy size, with compiled layers too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "benchmarks/gpu_training.py", *arguments, "--toy", "--steps", "1", "--warmup", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_toy_is_measured_with_its_time_by_part() -> None:
    result = run("blip2")
    assert result["samples_per_s"] > 0
    assert result["model_flops_per_s"] > 0
    assert set(result["seconds_by_part"]) == {"vision", "qformer", "language", "loss", "backward", "optimizer"}
    assert result["planned_bytes"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("model", ["blip2", "florence2"])
def test_compiled_checkpointed_layers_train(model: str) -> None:
    assert run(model, "--compile", "--checkpointing")["samples_per_s"] > 0
