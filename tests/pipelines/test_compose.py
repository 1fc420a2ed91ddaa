"""The configuration is put together and judged whole; every mistake is one line with the key's full path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.compose import CONF, choices, load
from stages.base.contract import UserError
from stages.base.external_files import addresses, own_files


def complaint(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(overrides)
    return str(caught.value)


def test_the_defaults_are_the_demonstration() -> None:
    config = load()
    assert config.model.name == "blip2_tiny"
    assert {address.world for _, address in addresses(config)} == {"demo"}
    assert own_files(config) == []
    assert list(config.held_out) == ["demo_vqa"]


@pytest.mark.parametrize("model", choices(CONF, "model"))
def test_every_model_composes_with_its_own_recipe(model: str) -> None:
    config = load([f"model={model}"])
    assert config.model.name == model
    assert config.train.phases


def test_an_xl_model_brings_its_tokenizer_sources_and_benchmarks() -> None:
    config = load(["model=blip2_xl"])
    assert config.tokenizer.vocabulary == 50_000
    assert list(config.sources) == ["laion", "cc12m", "coco"]
    assert {"vqav2", "nocaps", "flickr30k"} <= set(config.held_out)
    assert list(load(["model=blip2_xl", "source=coco"]).sources) == ["coco"]


@pytest.mark.parametrize("group", ["source", "selection", "tokenizer", "task", "benchmark", "cluster"])
def test_every_choice_in_conf_validates(group: str) -> None:
    needed = {("tokenizer", "own"): ["tokenizer.folder=somewhere"]}
    for name in choices(CONF, group):
        load([f"{group}={name}", *needed.get((group, name), [])])


def test_a_local_workspace_may_be_named_by_its_url() -> None:
    assert load(["workspace=file:///data/ws"]).workspace == "/data/ws"


def test_a_key_that_only_the_schema_knows_can_be_overridden() -> None:
    assert load(["shard.max_samples=7"]).shard.max_samples == 7


def test_a_list_of_choices_is_written_with_commas() -> None:
    assert list(load(["source=demo_coco,demo_laion"]).sources) == ["demo_coco", "demo_laion"]


def test_a_task_that_a_benchmark_needs_is_added() -> None:
    config = load(["task=[]", "benchmark=demo_vqa"])
    assert list(config.tasks) == ["demo_vqa"]


def test_an_unknown_key_names_itself_its_neighbours_and_the_nearest() -> None:
    line = complaint("train.zero.stagee=1")
    assert re.match(r"train\.zero\.stagee: unknown key; did you mean stage\? train\.zero takes stage, ", line)
    assert "\n" not in line


def test_a_wrong_type_names_key_value_and_what_is_allowed() -> None:
    assert complaint("train.lr=fast").startswith("train.lr='fast': input should be a valid number")


def test_a_value_out_of_range_names_the_range() -> None:
    assert complaint("train.lr=-1") == "train.lr=-1: input should be greater than 0"
    assert "0, 1, 2 or 3" in complaint("train.zero.stage=4")


def test_a_mixture_weighs_every_source_and_no_other() -> None:
    line = complaint("source=demo_coco,demo_laion", "train.mixture={demo_coco: 1}")
    assert line == "train.mixture gives demo_laion no weight: give one, 0 to leave it out"
    line = complaint("source=demo_coco", "train.mixture={demo_coco: 1, coco: 2}")
    assert line == "train.mixture names coco, but the sources are demo_coco"


def test_a_key_of_a_discriminated_part_has_the_path_a_user_writes() -> None:
    assert complaint("model.vision.widht=1").startswith("model.vision.widht: unknown key; did you mean width?")
    assert complaint("model.vision.width=66") == "model.vision: width 66 is not divisible by heads 4"
    assert complaint("model.vision.width=two").startswith("model.vision.width='two': input should be a valid integer")
    assert complaint("model.adapter=1").startswith(
        "model.adapter: unknown key; did you mean adapters? model takes arch"
    )


def test_an_architecture_that_is_not_registered_is_named_with_those_that_are() -> None:
    assert complaint("model.architecture=gpt").startswith(
        "model.architecture='gpt': architecture 'gpt' is not known (known: blip2, florence2"
    )


def test_a_key_of_a_source_is_judged_by_the_schema_of_its_kind() -> None:
    assert complaint("sources.demo_laion.nonsense=1").startswith("sources.demo_laion.nonsense: unknown key")


def test_all_mistakes_are_told_at_once() -> None:
    lines = complaint("train.lr=-1", "sources.demo_laion.nonsense=1").splitlines()
    assert len(lines) == 2


def test_an_unknown_choice_lists_the_choices() -> None:
    line = complaint("model=gpt")
    assert line.startswith("model=gpt: no conf/model/gpt.yaml; choose one of blip2_smol, blip2_tiny, blip2_xl")


def test_a_word_that_is_no_override_says_how_to_write_one() -> None:
    assert "write key=value" in complaint("blip2_xl")


@pytest.mark.parametrize("folder", ["a=b", "it's (1), here", "plain"])
def test_choices_of_other_packages_are_found_in_folders_of_any_name(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = tmp_path / folder / "conf"
    for group in ("model", "recipe"):
        (brought / group).mkdir(parents=True)
        (brought / group / "brought.yaml").write_text((CONF / group / "blip2_tiny.yaml").read_text())
    monkeypatch.setattr("pipelines.compose.conf_folders", lambda: [brought])
    assert load(["model=brought"]).model == load(["model=blip2_tiny"]).model
