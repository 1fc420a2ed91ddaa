"""Fine-tuning for real: Ray Train, DeepSpeed, two ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models import registry
from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.finetune.stage import Finetune

TWO = {"workers": 2, "max_failures": 2}
SPEEDS = ("samples_per_s", "tokens_per_s", "model_flops_per_s")


def history(artifact: Artifact) -> list[tuple[int, dict[str, float]]]:
    lines = [json.loads(line) for line in artifact.path("history.jsonl").read_text().splitlines()]
    return [(x["step"], {k: v for k, v in x["metrics"].items() if k not in SPEEDS}) for x in lines]


@pytest.fixture(scope="session")
def unkilled(ray_session: None) -> dict[str, Artifact]:
    """The run others are compared with, made once."""
    return {}


@pytest.fixture
def reference(unkilled: dict[str, Artifact], run_stage: Any, inputs: Any, config: Any) -> Artifact:
    if "zero1" not in unkilled:
        unkilled["zero1"] = run_stage(Finetune(config()), inputs, cluster=TWO)
    return unkilled["zero1"]


def test_two_ranks_under_zero_1_learn_and_leave_a_model(reference: Artifact, inputs: Any) -> None:
    record = reference.read_json("train.json")
    assert record["world_size"] == 2
    assert record["steps"] == 12
    assert record["samples_seen"] == 96
    assert record["prompt"] == "Q: {}"
    assert record["preprocessing"]["image_size"] == 16
    assert record["phases"][0]["last_loss"] < record["phases"][0]["first_loss"] - 0.5
    lines = history(reference)
    assert [step for step, _ in lines] == [3, 6, 9, 12]
    assert all(metrics["grad_norm"] > 0 and metrics["lr"] > 0 for _, metrics in lines)
    assert Finetune.summary(Finetune(None), reference)["steps"] == 12  # type: ignore[arg-type]

    model: Any = registry.load(reference.path("model"))
    start: Any = registry.load(inputs["model"][0].path("model"))
    assert not torch.equal(model.language.get_input_embeddings().weight, start.language.get_input_embeddings().weight)
    assert (
        reference.path("tokenizer/tokenizer.json").read_bytes()
        == inputs["tokenizer"][0].path("tokenizer.json").read_bytes()
    )


def test_a_batch_that_does_not_divide_is_refused_before_any_worker_starts(
    run_stage: Any, inputs: Any, config: Any
) -> None:
    with pytest.raises(UserError, match=r"tasks\.test\.global_batch=9"):
        run_stage(Finetune(config(global_batch=9)), inputs, cluster=TWO)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_all_zero_stages_reach_the_same_weights(
    stage: int, reference: Artifact, run_stage: Callable[..., Artifact], inputs: Any, config: Any
) -> None:
    other = run_stage(Finetune(config(zero={"stage": stage})), inputs, cluster=TWO)
    for (step, a), (also, b) in zip(history(other), history(reference), strict=True):
        assert step == also
        assert a == pytest.approx(b, rel=1e-3)
    weights, expected = (load_file(x.path("model/model.safetensors")) for x in (other, reference))
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_ranks_that_share_one_copy_of_the_weights_leave_it_whole(
    ray_session: None, run_stage: Any, inputs: Any, config: Any
) -> None:
    made = run_stage(Finetune(config()), inputs, cluster={**TWO, "tensor_parallel": 2})
    losses = [metrics["loss"] for _, metrics in history(made)]
    assert losses[-1] < losses[0] - 0.5
    weights = load_file(made.path("model/model.safetensors"))
    start = load_file(inputs["model"][0].path("model/model.safetensors"))
    assert {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in start.items()}
    changed = {name for name, w in weights.items() if not torch.equal(w, start[name])}
    assert any(name.endswith("fc2.weight") for name in changed)


@pytest.mark.slow
def test_a_missing_image_is_the_users_to_mend_and_named(
    ray_session: None, run_stage: Any, inputs: Any, config: Any
) -> None:
    with pytest.raises(UserError, match=r"none\.png: no such image"):
        run_stage(Finetune(config(image_pattern="none.png")), inputs, cluster=TWO)
