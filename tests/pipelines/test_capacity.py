"""What does not fit is refused at once, with what it needs and a way out that fits."""

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


def _train(name: str, **fields: Any) -> TrainConfig:
    return TrainConfig(**{**_conf("recipe", name), **fields})


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
        capacity.check(_model("blip2_xl"), _train("blip2_xl", micro_batch=16), _cluster("local"))
    assert time.monotonic() - began < 10
    text = str(raised.value)
    assert "35.3B parameters" in text
    assert "ZeRO-3" in text
    assert "x 80 GB GPUs would do" in text
    assert "2 CPU workers sharing 16 GB of memory, no GPU" in text
    assert "make pretrain MODEL=blip2_xl CLUSTER=a100x128" in text
    assert "make pretrain MODEL=blip2_tiny" in text
    assert len(text.splitlines()) <= 8


def test_activations_count_not_a_flat_share() -> None:
    model, cluster = _model("florence2_xl"), _cluster("a100x64")
    capacity.check(model, _train("florence2_xl"), cluster)
    with pytest.raises(UserError, match=r"phase 1 \(sequence_to_sequence\) needs \d+\.\d GB on each GPU") as raised:
        capacity.check(model, _train("florence2_xl", activation_checkpointing={}), cluster)
    assert 'ARGS="train.micro_batch=8"' in str(raised.value)


def test_what_is_advised_for_the_same_cluster_fits_it() -> None:
    model, cluster = _model("florence2_xl"), _cluster("a100x64")
    train = _train("florence2_xl", micro_batch=64, activation_checkpointing={})
    with pytest.raises(UserError, match="activations"):
        capacity.check(model, train, cluster)
    capacity.check(model, _train("florence2_xl", micro_batch=8, activation_checkpointing={}), cluster)


def test_needs_are_those_of_the_phase_that_needs_most() -> None:
    need = capacity.needs(_model("blip2_xl"), _train("blip2_xl"), _cluster("a100x128"))
    assert need["parameters"] == pytest.approx(35e9, rel=0.02)
    assert need["trainable"] < 4e9
    assert need["gb_per_rank"] > sum(need["gb_per_rank_by_item"].values())
    # 32B frozen parameters over the eight ranks of a node, and the shards of those that learn.
    assert need["gb_per_rank_by_item"]["weights"] == pytest.approx(2 * 31.8 / 8, rel=0.02)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_least_number_of_gpus_fits_and_half_of_it_does_not(stage: int) -> None:
    model = _model("florence2_xl")
    train = _train("florence2_xl", zero={"stage": stage}, activation_checkpointing={"vision": 1, "language": 1})
    cluster = _cluster("a100x64")
    least = capacity.minimum_gpus(model, train, cluster)
    assert least is not None
    assert least > 1
    capacity.check(model, train, cluster.model_copy(update={"workers": least}))
    with pytest.raises(UserError, match=f"{least} x 80 GB GPUs would do"):
        capacity.check(model, train, cluster.model_copy(update={"workers": least // 2}))


def test_a_zero_stage_that_no_number_of_gpus_helps_is_answered_with_one_that_does() -> None:
    with pytest.raises(UserError) as raised:
        capacity.check(_model("florence2_xl"), _train("florence2_xl", zero={"stage": 0}), _cluster("a100x64"))
    assert "no number of 80 GB GPUs is enough" in str(raised.value)
    assert "train.zero.stage=3" in str(raised.value)


def test_gpus_that_this_machine_does_not_have_are_not_counted(laptop: None) -> None:
    with pytest.raises(UserError, match="0 GPUs on this machine, of the 2"):
        capacity.check(_model("blip2_tiny"), _train("blip2_tiny"), _cluster("local", gpus_per_worker=1))


def test_the_gpus_of_this_machine_are_measured_not_believed(laptop: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu_memory_bytes", lambda: [24 * 10**9] * 4)
    cluster = _cluster("local", workers=2, gpus_per_worker=1, gpu_memory_gb=80, precision="bf16")
    capacity.check(_model("blip2_tiny"), _train("blip2_tiny"), cluster)
    with pytest.raises(UserError, match="has    2 x 24 GB GPUs"):
        capacity.check(_model("florence2_xl"), _train("florence2_xl"), cluster)


def test_an_unknown_part_is_named_with_those_there_are(laptop: None) -> None:
    train = _train("blip2_tiny")
    phase = train.phases[0].model_copy(update={"trainable": ["qfromer"]})
    train = train.model_copy(update={"phases": [phase]})
    with pytest.raises(UserError, match=r"train.phases\[0\].trainable: representation uses no part 'qfromer'"):
        capacity.check(_model("blip2_tiny"), train, _cluster("local"))


def test_tensor_parallel_must_divide_the_workers() -> None:
    with pytest.raises(UserError, match=r"cluster\.tensor_parallel=3 does not divide cluster\.workers=64"):
        capacity.check(_model("blip2_tiny"), _train("blip2_tiny"), _cluster("a100x64", tensor_parallel=3))


def test_a_micro_batch_that_does_not_divide_the_global_batch_is_refused_before_anything_starts() -> None:
    with pytest.raises(UserError, match=r"train\.global_batch=2048 is not a multiple of train\.micro_batch=64"):
        capacity.check(_model("blip2_xl"), _train("blip2_xl", micro_batch=64), _cluster("a100x128"))


def test_the_check_imports_neither_torch_nor_ray() -> None:
    code = "import sys, pipelines.capacity, pipelines.commands.plan, models.registry as r; "
    code += "[r.spec(name) for name in r.architectures()]; "
    code += "print(sorted({'torch', 'ray', 'transformers', 'mlflow', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_this_machines_memory_is_a_plausible_number_of_bytes() -> None:
    assert 2**28 < machine.memory_bytes() < 2**45
