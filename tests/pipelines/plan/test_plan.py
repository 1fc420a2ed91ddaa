"""`pairmill plan`: the published set-ups fit, one thing changed they do not, and what is advised does."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from pipelines.main import main
from stages.base.contract import UserError

BLIP2 = ["model=blip2_xl", "cluster=a100x128"]
FLORENCE2 = ["model=florence2_xl", "cluster=a100x64"]


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["plan", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("words", [BLIP2, FLORENCE2], ids=["blip2", "florence2"])
def test_both_published_set_ups_fit_with_every_item_shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, record = planned(capsys, *words)
    assert code == 0
    assert record["fits"]
    for phase in record["phases"]:
        memory = phase["memory"]
        assert memory["bytes"] < memory["available"] == 80e9
        assert sum(memory["items"].values()) == pytest.approx(memory["bytes"])
        assert {"weights", "gathered weights", "gradients", "optimizer", "activations", "buckets", "reserve"} <= set(
            memory["items"]
        )
        assert memory["host_bytes_per_rank_at_start"] * 8 < 256e9
        assert phase["largest_micro_batch"] >= record["micro_batch"]
        assert 0 < phase["time"]["mfu"] <= 0.5
        assert phase["checkpoint_bytes"] > 0 < phase["model_bytes"]
    assert main(["plan", *words]) == 0
    printed = capsys.readouterr().out
    for item in ("weights", "gathered weights", "buckets", "optimizer", "activations", "reserve", "host at start"):
        assert item in printed
    assert printed.rstrip().endswith("yes: it fits")
    assert max(map(len, printed.splitlines())) < 200


@pytest.mark.parametrize(
    ("words", "change", "why"),
    [
        (FLORENCE2, "train.activation_checkpointing={}", "sequence_to_sequence"),
        (FLORENCE2, "train.micro_batch=64", "sequence_to_sequence"),
        (FLORENCE2, "train.zero.stage=1", "sequence_to_sequence"),
        (BLIP2, "train.micro_batch=64", "global_batch"),
        (BLIP2, "train.zero.stage=1", "language_modeling"),
        (BLIP2, "train.global_batch=100", "global_batch"),
        (BLIP2, "cluster.workers=3", "3 ranks"),
    ],
)
def test_with_one_thing_changed_the_answer_is_no_and_what_to_change(
    words: list[str], change: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, record = planned(capsys, *words, change)
    assert code == 1
    assert not record["fits"]
    assert why in record["why"]
    assert record["change"]
    for advised in record["change"]:
        overrides = shlex.split(" ".join(advised))
        code, again = planned(capsys, *words, change, *overrides)
        assert code == 0, (advised, again["why"])
    assert main(["plan", *words, change]) == 1
    assert "\nno: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--samples", "nan"], "--samples nan"),
        (["--samples", "inf"], "--samples inf"),
        (["--samples", "-1"], "--samples -1"),
        (["--samples", "0"], "--samples 0"),
        (["--text-tokens", "-5"], "--text-tokens -5"),
        (["--text-tokens", "0"], "--text-tokens 0"),
        (["--text-tokens", "100000"], "--text-tokens 100000"),
        (["train.activation_checkpointing={vison: 1}"], "vison"),
        (["train.compile=true"], "train.compile=true does not go with train.zero.stage=3"),
        (["train.max_text_tokens=4096"], "has positions for"),
        (["train.zero.frozen_shards=7"], "train.zero.frozen_shards=7"),
        (["train.zero.frozen_shards=256"], "train.zero.frozen_shards=256"),
        (["cluster.tensor_parallel=64"], "does not divide model.vision.heads"),
    ],
    ids=" ".join,
)
def test_nonsense_is_a_mistake_in_one_line(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *BLIP2, *words]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert len(printed.err.splitlines()) == 1
    assert why in printed.err


def test_ways_to_split_weights_divide_the_heads(capsys: pytest.CaptureFixture[str]) -> None:
    heads = ["model.vision.heads=4", "model.vision.width=1408", "cluster.tensor_parallel=1"]
    _, record = planned(capsys, *BLIP2, *heads)
    names = {layout["name"] for layout in record["layouts"]}
    assert "ZeRO-1, weights split over 4" in names
    assert "ZeRO-1, weights split over 8" not in names


def test_the_best_way_to_lay_weights_out_is_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (BLIP2, FLORENCE2):
        _, record = planned(capsys, *words)
        (best,) = [layout for layout in record["layouts"] if layout["best"]]
        assert best["current"]
        fastest = min(sum(layout["step_seconds"]) for layout in record["layouts"] if layout["fits"])
        assert sum(best["step_seconds"]) <= 1.02 * fastest
    _, record = planned(capsys, *BLIP2)
    names = {layout["name"]: layout for layout in record["layouts"]}
    assert not names["ZeRO-1, weights on every rank"]["fits"]
    over_all, of_a_node = names["ZeRO-3 over all ranks"], names["ZeRO-3, frozen weights over 8 ranks"]
    assert of_a_node["gb"] > over_all["gb"]
    assert of_a_node["network"][1]["gather frozen weights"] < 0.6 * over_all["network"][1]["gather frozen weights"]


def test_published_figures_that_contradict_each_other_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    _, record = planned(capsys, *FLORENCE2)
    text = " ".join(record["published"])
    assert "32,256 GPU-hours" in text
    assert "1,500,000 GPU-hours are claimed, 47 times as many" in text
    assert "CONTRADICTION: above 100%" in text
    _, record = planned(capsys, *BLIP2)
    text = " ".join(record["published"])
    assert "150,528 GPU-hours" in text
    assert "an MFU of 8.4%" in text


def test_flops_count_recomputation_apart(capsys: pytest.CaptureFixture[str]) -> None:
    _, record = planned(capsys, *FLORENCE2)
    phase = record["phases"][1]
    assert phase["hardware_flops_per_sample"] > phase["model_flops_per_sample"]
    assert phase["flops_per_sample"]["vision"]["recomputed"] == 0
    _, record = planned(capsys, *BLIP2)
    flops = record["phases"][1]["flops_per_sample"]
    assert flops["vision"]["backward"] == 0  # frozen, and nothing before it learns
    assert flops["language"]["backward"] == pytest.approx(flops["language"]["forward"], rel=0.01)


def test_shorter_texts_change_times_and_not_memory(capsys: pytest.CaptureFixture[str]) -> None:
    _, long = planned(capsys, *FLORENCE2)
    _, short = planned(capsys, "--text-tokens", "20", *FLORENCE2)
    assert short["phases"][1]["memory"] == long["phases"][1]["memory"]
    assert short["total"]["days"] < 0.3 * long["total"]["days"]
    assert short["total"]["kwh"] == pytest.approx(short["total"]["gpu_hours"] * 0.4 * 1.2)


def test_a_laptops_plan_has_no_gpus_and_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    code, record = planned(capsys, "model=blip2_tiny")
    assert code == 0
    assert "layouts" not in record
    assert "time" not in record["phases"][0]
    assert main(["plan", "model=blip2_tiny"]) == 0
    assert "memory of a process" in capsys.readouterr().out


def test_an_empty_mapping_empties_the_recipes() -> None:
    from pipelines.compose import load

    assert load(["model=florence2_xl"]).train.activation_checkpointing == {"language": 4}
    assert load(["model=florence2_xl", "train.activation_checkpointing={}"]).train.activation_checkpointing == {}
    with pytest.raises(UserError):
        load(["train.phases={}"])
