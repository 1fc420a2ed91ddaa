"""What does not fit is refused at once, with the arithmetic of the ZeRO paper and a way out."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.registry import model_config
from pipelines import capacity, machine
from pipelines.cluster import ClusterConfig
from stages.base.contract import UserError
from stages.train.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]


def _conf(group: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "conf" / group / f"{name}.yaml").read_text())


def _model(name: str) -> Any:
    return model_config(_conf("model", name))


def _train(name: str, **zero: Any) -> TrainConfig:
    recipe = _conf("recipe", name)
    return TrainConfig(**{**recipe, "zero": {**recipe["zero"], **zero}})


def _cluster(name: str, **fields: Any) -> ClusterConfig:
    return ClusterConfig(**{**_conf("cluster", name), **fields})


@pytest.fixture
def laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 GB without GPUs, whatever the tests run on."""
    monkeypatch.setattr(machine, "memory_bytes", lambda: 16 * 10**9)
    monkeypatch.setattr(machine, "gpu_memory_bytes", list)


@pytest.mark.parametrize("name", ["blip2_tiny", "florence2_tiny"])
def test_the_small_models_train_on_a_laptop(name: str, laptop: None) -> None:
    capacity.check(_model(name), _train(name), _cluster("local"))


@pytest.mark.parametrize(("name", "cluster"), [("blip2_xl", "a100x128"), ("florence2_xl", "a100x64")])
def test_the_published_models_train_on_the_clusters_they_were_published_with(name: str, cluster: str) -> None:
    capacity.check(_model(name), _train(name), _cluster(cluster))


def test_blip2_xl_on_a_laptop_is_refused_with_needs_what_is_there_and_what_to_type(laptop: None) -> None:
    began = time.monotonic()
    with pytest.raises(UserError) as raised:
        capacity.check(_model("blip2_xl"), _train("blip2_xl"), _cluster("local"))
    assert time.monotonic() - began < 1
    text = str(raised.value)
    assert "35.3B parameters" in text
    assert "ZeRO-3" in text
    assert "at least 2 x 80 GB GPUs" in text
    assert "2 CPU workers sharing 16 GB of memory, no GPU" in text
    assert "make pretrain MODEL=blip2_xl CLUSTER=a100x128" in text
    assert "make pretrain MODEL=blip2_tiny" in text
    assert len(text.splitlines()) <= 6


def test_states_of_a_fully_trained_model_are_the_zero_papers_sixteen_bytes() -> None:
    train = _train("florence2_xl", stage=3)
    need = capacity.needs(_model("florence2_xl"), train, _cluster("a100x64", tensor_parallel=1))
    parameters = need["parameters"]
    assert need["trainable"] == parameters == pytest.approx(12.2e9, rel=0.02)
    assert need["gb_per_rank"] == pytest.approx(16 * parameters / 64 / 1e9, abs=1e-3)
    assert need["gpus_of_80_gb"] == 4  # 195 GB of states in 64 of each 80 GB


@pytest.mark.parametrize(
    ("stage", "bytes_per_parameter"),
    [(0, 2 + 2 + 12), (1, 2 + 2 + 12 / 64), (2, 2 + (2 + 12) / 64), (3, (2 + 2 + 12) / 64)],
)
def test_each_zero_stage_spreads_what_the_paper_says(stage: int, bytes_per_parameter: float) -> None:
    cluster = _cluster("a100x64", tensor_parallel=1)
    need = capacity.needs(_model("florence2_xl"), _train("florence2_xl", stage=stage), cluster)
    assert need["gb_per_rank"] == pytest.approx(need["parameters"] * bytes_per_parameter / 1e9, abs=1e-3)


def test_offloading_moves_the_optimizers_twelve_bytes_to_the_hosts() -> None:
    cluster = _cluster("a100x64", tensor_parallel=1)
    train = _train("florence2_xl", stage=2, offload_optimizer=True)
    need = capacity.needs(_model("florence2_xl"), train, cluster)
    assert need["host_gb"] == pytest.approx(12 * need["parameters"] / 1e9, abs=1e-3)
    assert need["gb_per_rank"] == pytest.approx(need["parameters"] * (2 + 2 / 64) / 1e9, abs=1e-3)


def test_tensor_parallel_ranks_share_one_copy() -> None:
    model, train = _model("florence2_xl"), _train("florence2_xl", stage=1)
    need = capacity.needs(model, train, _cluster("a100x64", tensor_parallel=4))
    assert need["gb_per_rank"] == pytest.approx(need["parameters"] * (4 / 4 + 12 / 64) / 1e9, abs=1e-3)


def test_a_frozen_part_costs_its_weights_alone() -> None:
    need = capacity.needs(_model("blip2_xl"), _train("blip2_xl"), _cluster("a100x128"))
    assert need["parameters"] == pytest.approx(35e9, rel=0.02)
    assert need["trainable"] < 4e9
    states = 2 * need["parameters"] + 14 * need["trainable"]
    assert need["gb_per_rank"] == pytest.approx(states / 128 / 1e9, abs=1e-3)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_least_number_of_gpus_is_the_least_that_passes(workers: int, stage: int) -> None:
    model, train = _model("florence2_xl"), _train("florence2_xl", stage=stage)
    cluster = _cluster("a100x64", workers=workers, tensor_parallel=1)
    least = capacity.needs(model, train, cluster)["gpus_of_80_gb"]
    if least <= workers:
        capacity.check(model, train, cluster)
    else:
        with pytest.raises(UserError, match=f"at least {least} x 80 GB GPUs"):
            capacity.check(model, train, cluster)


def test_a_zero_stage_that_no_number_of_gpus_helps_is_answered_with_one_that_does() -> None:
    with pytest.raises(UserError) as raised:
        capacity.check(_model("florence2_xl"), _train("florence2_xl", stage=0), _cluster("a100x64", tensor_parallel=1))
    assert "no number of 80 GB GPUs is enough" in str(raised.value)
    assert "train.zero.stage=1" in str(raised.value)


def test_gpus_that_this_machine_does_not_have_are_not_counted(laptop: None) -> None:
    with pytest.raises(UserError, match="0 GPUs on this machine, of the 2"):
        capacity.check(_model("blip2_tiny"), _train("blip2_tiny"), _cluster("local", gpus_per_worker=1))


def test_the_gpus_of_this_machine_are_measured_not_believed(laptop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu_memory_bytes", lambda: [24 * 10**9] * 4)
    cluster = _cluster("local", workers=4, gpus_per_worker=1, gpu_memory_gb=80, precision="bf16")
    capacity.check(_model("blip2_tiny"), _train("blip2_tiny"), cluster)
    with pytest.raises(UserError, match="has    4 x 24 GB GPUs"):
        capacity.check(_model("florence2_xl"), _train("florence2_xl", stage=3), cluster)


def test_an_unknown_part_is_named_with_those_there_are(laptop: None) -> None:
    train = _train("blip2_tiny")
    phase = train.phases[0].model_copy(update={"trainable": ["qfromer"]})
    train = train.model_copy(update={"phases": [phase]})
    with pytest.raises(
        UserError, match=r"train.phases\[0\].trainable: blip2_tiny has no part 'qfromer'; its parts are"
    ):
        capacity.check(_model("blip2_tiny"), train, _cluster("local"))


def test_tensor_parallel_must_divide_the_workers() -> None:
    with pytest.raises(UserError, match=r"cluster\.tensor_parallel=3 does not divide cluster\.workers=64"):
        capacity.check(_model("blip2_tiny"), _train("blip2_tiny"), _cluster("a100x64", tensor_parallel=3))


def test_the_check_imports_neither_torch_nor_ray() -> None:
    code = "import sys, pipelines.capacity, models.registry as r; [r.spec(name) for name in r.architectures()]; "
    code += "print(sorted({'torch', 'ray', 'transformers', 'mlflow', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_this_machines_memory_is_a_plausible_number_of_bytes() -> None:
    assert 2**28 < machine.memory_bytes() < 2**45
