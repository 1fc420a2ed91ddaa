"""The gradient of one global batch is the same whatever the micro-batch, the ranks, ZeRO's stage, and checkpointing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tests.stages.train.trainer import gradients as program
from tests.stages.train.trainer.gradients import GLOBAL_BATCH, one_after_the_other
from tests.stages.train.trainer.launch_ranks import launch_ranks

LAYOUTS = [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (4, 2)]
"""(micro-batch, ranks)"""
SMOOTHED = {"label_smoothing": 0.1}
#: Of representation only the texts that are written: what is compared depends on the layout by design.
WRITTEN = {"contrastive": 1e-30, "matching": 1e-30, **SMOOTHED}
CASES: dict[str, dict[str, Any]] = {
    "language_modeling": {"model": "blip2", "objective": "language_modeling"},
    "language_modeling, smoothed": {"model": "blip2", "objective": "language_modeling", "settings": SMOOTHED},
    "sequence_to_sequence": {"model": "florence2", "objective": "sequence_to_sequence", "settings": SMOOTHED},
    "masked_autoencoding": {"model": "florence2", "objective": "masked_autoencoding"},
    "representation": {"model": "blip2", "objective": "representation", "settings": WRITTEN},
}

#: Objective -> parts whose layers can be computed again.
CHECKPOINTED = {
    "language_modeling": ["vision", "qformer", "language"],
    "representation": ["vision", "qformer"],
    "sequence_to_sequence": ["vision", "language"],
    "masked_autoencoding": ["vision", "reconstruction"],
}
#: Four micro-batches on two ranks: from the third on DeepSpeed gathers weights ahead of their use. Five layers: with
#: every fourth computed again, some are and some are not.
PREFETCHING = {"micro_batch": 1, "layers": 5}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], names: set[str] | None = None) -> None:
    assert found.keys() == expected.keys()
    assert any(gradient.abs().max() > 1e-3 for name, gradient in expected.items() if gradient.dim() == 2)
    for name in names or found.keys():
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_and_ranks_change_no_gradient_and_no_reported_loss(case: str) -> None:
    at_once = one_after_the_other({**CASES[case], "micro_batch": GLOBAL_BATCH}, 1)
    for micro_batch, ranks in LAYOUTS:
        found = one_after_the_other({**CASES[case], "micro_batch": micro_batch}, ranks)
        if case == "representation":
            for results in (found, at_once):
                results.update(dict.fromkeys(("itc", "itm", "itc_accuracy"), torch.zeros(())))
        assert_equal(found, at_once)


def test_what_a_loss_is_divided_by_is_the_count_of_the_batch_where_that_is_the_global_one() -> None:
    case = {**CASES["language_modeling"], "micro_batch": GLOBAL_BATCH}
    objective = program.objective_of(case)
    planned = dict(program.loader_of(case, 0, 1).micro_batch(1, 0))
    alone = {name: value for name, value in planned.items() if name not in ("mean_target_tokens", "mean_texts")}
    assert objective(planned)["loss"] == objective(alone)["loss"]


def test_masks_of_an_image_are_those_of_its_epoch_and_of_no_other() -> None:
    case = {**CASES["masked_autoencoding"], "micro_batch": 4}
    loader = program.loader_of(case, 0, 1)
    seeds: dict[int, set[int]] = {}
    for step in range(5):  # two epochs of twenty images
        for micro_step in range(loader.accumulation):
            batch = loader.micro_batch(step, micro_step)
            ids = dict(zip(batch["image_index"].tolist(), batch["image_id"].tolist(), strict=True))
            for row, seed in enumerate(batch["image_seed"].tolist()):
                seeds.setdefault(ids[row], set()).add(seed)
    assert {len(own) for own in seeds.values()} == {2}
    assert len(set().union(*seeds.values())) == 40


def run(cases: dict[str, dict[str, Any]], ranks: int, folder: Path) -> dict[str, dict[str, Tensor]]:
    """What each case gives with so many DeepSpeed ranks."""
    folder.mkdir()
    launch_ranks(ranks, program.save_gradients, cases, str(folder / "out.pt"))
    found: dict[str, dict[str, Tensor]] = torch.load(folder / "out.pt")
    return found


@pytest.mark.slow
def test_deepspeeds_ranks_take_the_gradient_of_the_global_batch(tmp_path: Path) -> None:
    cases = {
        f"{case}, {micro_batch}": {**CASES[case], "micro_batch": micro_batch, "stage": micro_batch % 3}
        for case in CASES
        for micro_batch in (1, 4)
    }
    # With one accumulation step ITC compares the whole global batch.
    compared = {**CASES["representation"], "settings": {"matching": 1e-30}}
    cases["compared"] = {**compared, "micro_batch": GLOBAL_BATCH // 2}
    found = run(cases, 2, tmp_path / "run")
    for name, case in cases.items():
        micro_batch = case["micro_batch"] if name != "compared" else GLOBAL_BATCH
        expected = one_after_the_other({**case, "micro_batch": micro_batch}, 2 if name != "compared" else 1)
        unlike = {"itm"} if name == "compared" else {"itm", "itc", "itc_accuracy"}
        assert_equal(found[name], expected, set(expected) - unlike)


@pytest.mark.slow
def test_checkpointing_changes_no_bit_under_zero_and_tensor_parallelism(tmp_path: Path) -> None:
    parts = {
        "blip2": {"vision": 1, "qformer": 1, "language": 1},
        "florence2": {"vision": 1, "language": 1},
    }
    frozen = {**CASES["language_modeling"], "micro_batch": 2, "trainable": ["qformer", "adapters"]}
    whole = {**CASES["sequence_to_sequence"], "micro_batch": 2}
    layouts = [{"stage": 1}, {"stage": 2}, {"stage": 3}, {"stage": 1, "tensor_parallel": 2}]
    cases = {
        f"{case['model']}, {number}, {checkpointed}": {
            **case,
            **layout,
            "checkpointing": parts[case["model"]] if checkpointed else {},
        }
        for case in (frozen, whole)
        for number, layout in enumerate(layouts)
        for checkpointed in (False, True)
    }
    # Apart, since a process in which DeepSpeed has split one model splits every later one.
    split = {name: case for name, case in cases.items() if "tensor_parallel" in case}
    found = run({name: case for name, case in cases.items() if name not in split}, 2, tmp_path / "whole")
    found |= run(split, 2, tmp_path / "split")
    for case in (frozen, whole):
        expected = one_after_the_other(case, 2)
        for number, layout in enumerate(layouts):
            plain, recomputed = (found[f"{case['model']}, {number}, {c}"] for c in (False, True))
            assert plain.keys() == recomputed.keys()
            assert all(torch.equal(plain[name], recomputed[name]) for name in plain), layout
            if "tensor_parallel" not in layout:  # where a rank has its share of each matrix
                assert_equal(plain, expected)


@pytest.mark.slow
def test_the_published_recipe_of_florence2_xl_takes_the_gradients_of_a_plain_training(tmp_path: Path) -> None:
    recipe = yaml.safe_load((Path(__file__).parents[4] / "conf/recipe/florence2_xl.yaml").read_text(encoding="utf-8"))
    shared = {"stage": recipe["zero"]["stage"], "checkpointing": recipe["activation_checkpointing"], **PREFETCHING}
    assert (shared["stage"], shared["checkpointing"]) == (3, {"language": 4})
    cases = {phase["objective"]: {**CASES[phase["objective"]], **shared} for phase in recipe["phases"]}
    found = run(cases, 2, tmp_path / "run")
    for name, case in cases.items():
        assert_equal(found[name], one_after_the_other(case, 2))


@pytest.mark.slow
@pytest.mark.parametrize("objective", CHECKPOINTED)
def test_recomputing_any_layers_changes_no_bit_under_zero_3(objective: str, tmp_path: Path) -> None:
    plain = {**CASES[objective], "stage": 3, **PREFETCHING}
    cases = {"0": plain}
    for every in (1, 2, 4):
        cases[str(every)] = {**plain, "checkpointing": dict.fromkeys(CHECKPOINTED[objective], every)}
    if objective == "language_modeling":
        partly = {"trainable": ["qformer", "adapters"]}
        cases |= {f"{name}, frozen": {**case, **partly} for name, case in cases.items()}
    found = run(cases, 2, tmp_path / "run")
    for name, gradients in found.items():
        expected = found[f"0{name[1:]}"]
        assert gradients.keys() == expected.keys()
        assert all(torch.equal(gradients[each], expected[each]) for each in expected), name
    for name in {"0", "0, frozen"} & set(cases):
        assert_equal(
            found[name], one_after_the_other(cases[name], 2), set(found[name]) - {"itm", "itc", "itc_accuracy"}
        )


@pytest.mark.slow
def test_frozen_weights_that_some_ranks_share_change_no_gradient(tmp_path: Path) -> None:
    trained = {**CASES["language_modeling"], "trainable": ["qformer", "adapters"], "stage": 3, "micro_batch": 1}
    cases = {"all": trained, "pairs": {**trained, "frozen_shards": 2}, "each": {**trained, "frozen_shards": 1}}
    expected = one_after_the_other({**trained, "micro_batch": GLOBAL_BATCH}, 1)
    for found in run(cases, 4, tmp_path / "run").values():
        assert_equal(found, expected)


@pytest.mark.slow
def test_compiled_layers_give_the_same_gradients(tmp_path: Path) -> None:
    frozen = {**CASES["language_modeling"], "micro_batch": 4, "trainable": ["qformer", "adapters"]}
    whole = {**CASES["sequence_to_sequence"], "micro_batch": 4, "checkpointing": {"vision": 1, "language": 2}}
    cases = {case["model"]: {**case, "stage": 1, "compile": True} for case in (frozen, whole)}
    found = run(cases, 2, tmp_path / "run")
    for case in (frozen, whole):
        assert_equal(found[case["model"]], one_after_the_other(case, 2))
