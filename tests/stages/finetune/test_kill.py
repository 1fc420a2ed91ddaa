"""What a kill must not change: a run that lost a rank, or its driver, equals one left alone, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from stages.base.contract import StageContext, UserError
from stages.finetune.config import FinetuneConfig
from stages.finetune.stage import Finetune
from stages.train.trainer.checkpoint import TrainState, write_state

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = {"workers": 2, "max_failures": 2, "cpus_per_worker": 1, "gpus_per_worker": 0, "precision": "fp32"}
DRIVER = """
import json, sys
from pathlib import Path
from pipelines.ray_session import start
from stages.base.artifact import Artifact
from stages.base.contract import StageContext
from stages.finetune.config import FinetuneConfig
from stages.finetune.stage import Finetune

inputs, config, folder, how = (json.loads(argument) for argument in sys.argv[1:])
start(cpus=2)
stage = Finetune(FinetuneConfig.model_validate(config))
held = {role: (Artifact(url),) for role, url in inputs.items()}
out = Path(folder, "out")
out.mkdir(parents=True)
stage.run(stage.partitions(held)[0], StageContext(held, out, out, folder + "/scratch", how))
"""


@pytest.fixture
def job(config: Any) -> FinetuneConfig:
    # Part of the model stays frozen: its weights are in no checkpoint and must come back all the same.
    made: FinetuneConfig = config(steps=60, trainable=["qformer", "adapters"])
    return made


def run(job: FinetuneConfig, inputs: Any, folder: Path) -> Path:
    (folder / "out").mkdir(parents=True)
    held = {role: tuple(artifacts) for role, artifacts in inputs.items()}
    stage = Finetune(job)
    stage.run(stage.partitions(held)[0], StageContext(held, folder / "out", folder, str(folder / "scratch"), CLUSTER))
    return folder


def result(folder: Path) -> tuple[list[Any], bytes]:
    """The history without its clock, and the weights."""
    lines = [json.loads(line) for line in (folder / "out" / "history.jsonl").read_text().splitlines()]
    clock = ("samples_per_s", "tokens_per_s", "model_flops_per_s")
    kept = [(x["step"], {k: v for k, v in x["metrics"].items() if k not in clock}) for x in lines]
    return kept, (folder / "out" / "model" / "model.safetensors").read_bytes()


def wait_for_checkpoint(folder: Path) -> None:
    """Until Ray Train knows of the checkpoint of step 20."""
    snapshot = folder / "scratch" / "train" / "ray" / "checkpoint_manager_snapshot.json"
    deadline = time.monotonic() + 240
    while not (snapshot.exists() and "step-000000020" in snapshot.read_text()):
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Any], bytes]]:
    """The run others are compared with, made once."""
    return {}


@pytest.fixture
def expected(left_alone: Any, ray_session: None, job: FinetuneConfig, inputs: Any, tmp_path: Path) -> Any:
    if not left_alone:
        left_alone["run"] = result(run(job, inputs, tmp_path / "left-alone"))
    return left_alone["run"]


@pytest.mark.slow
def test_a_run_that_lost_a_rank_equals_one_left_alone(
    expected: Any, job: FinetuneConfig, inputs: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    killed: list[int] = []

    def kill() -> None:
        wait_for_checkpoint(folder)
        ranks = [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]
        ranks[1].kill()
        killed.append(ranks[1].pid)

    thread = threading.Thread(target=kill)
    thread.start()
    run(job, inputs, folder)
    thread.join()
    assert killed
    assert result(folder) == expected


@pytest.mark.slow
def test_a_run_that_lost_its_driver_goes_on_and_equals_one_left_alone(
    expected: Any, job: FinetuneConfig, inputs: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    urls = {role: artifacts[0].url for role, artifacts in inputs.items()}
    arguments = [json.dumps(value) for value in (urls, job.model_dump(mode="json"), str(folder), CLUSTER)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], env=environment, cwd=ROOT)
    try:
        wait_for_checkpoint(folder)
    finally:
        driver.kill()
        driver.wait()
    assert not (folder / "out" / "model").exists()
    (folder / "out").rmdir()
    time.sleep(3)  # the dead driver's Ray goes down with it
    run(job, inputs, folder)
    assert result(folder) == expected


def test_another_number_of_ranks_cannot_take_a_checkpoint_over(
    job: FinetuneConfig, inputs: Any, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "run" / "scratch" / "train" / "ray" / "step-000000005"
    checkpoint.mkdir(parents=True)
    write_state(checkpoint, TrainState(ranks=4))
    with pytest.raises(UserError, match=r"saved by 4 training workers .* cluster\.workers=4"):
        run(job, inputs, tmp_path / "run")
