"""Nodes from a configuration: their inputs and outside files, derived from the files that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.compose import load
from pipelines.dag import build
from pipelines.node import Dag
from pipelines.state import Workspace
from pipelines.store import Store
from stages.base.contract import UserError
from stages.index.config import IndexConfig

BARE = ("source=[]", "task=[]", "benchmark=[]", "held_out=[]", "tokenizer=bpe_50k")


def dag(*overrides: str) -> Dag:
    return build(load(overrides))


def complaint(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        dag(*overrides)
    return str(caught.value)


def test_a_node_has_the_worlds_that_its_config_addresses() -> None:
    nodes = dag()
    readers = {node.id for node in nodes.values() if {"world", "worlds"} & set(node.inputs)}
    named = ("ingest", "download", "index", "tokenizer", "finetune", "evaluate")
    assert readers == {node.id for node in nodes.values() if node.stage.name in named}
    assert nodes["index"].inputs["worlds"] == ("world[demo]",)
    assert nodes["ingest[demo_coco]"].inputs == {"world": ("world[demo]",)}
    assert next(iter(nodes)) == "world[demo]"


def test_no_world_is_made_that_nothing_addresses() -> None:
    assert not [node_id for node_id in dag(*BARE) if node_id.startswith("world")]


def test_a_source_may_read_files_of_its_own_and_of_worlds(tmp_path: Path) -> None:
    own = tmp_path / "own.tsv"
    own.write_text("x")
    more = "+worlds.more={kind: demo, seed: 1}"
    paths = f"sources.s.paths=[world:demo/lists/cc3m.tsv,{own},world:more/lists/cc3m.tsv]"
    nodes = dag(*BARE, "+sources.s={kind: cc3m}", paths, more)
    assert nodes["ingest[s]"].inputs == {"world": ("world[demo]", "world[more]")}
    assert list(nodes["ingest[s]"].files()) == [str(own)]
    workspace = Workspace(nodes, Store(str(tmp_path / "workspace")))
    before = workspace.require(nodes["ingest[s]"])
    own.write_text("other contents")
    assert Workspace(nodes, Store(str(tmp_path / "workspace"))).require(nodes["ingest[s]"]) != before


def test_folders_of_weights_count_by_what_a_model_takes_from_them(tmp_path: Path) -> None:
    def pretrained(**folders: str) -> str | None:
        given = [f"model.initialise_from.{part}={tmp_path / folder}" for part, folder in folders.items()]
        return Workspace(dag(*BARE, *given), Store(str(tmp_path / "workspace"))).fingerprints["pretrain[blip2_tiny]"]

    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_text(f"weights of {name}")
    start = pretrained(vision="one", qformer="other")
    assert None not in (start, pretrained())
    assert start != pretrained()
    assert pretrained(vision="other", qformer="one") != start
    (tmp_path / "one" / "README.md").write_text("a note, no weights")
    (tmp_path / "moved").mkdir()
    (tmp_path / "one").rename(tmp_path / "moved" / "here")
    (tmp_path / "link").symlink_to(tmp_path / "moved" / "here")
    assert pretrained(vision="moved/here", qformer="other") == pretrained(vision="link", qformer="other") == start
    (tmp_path / "link" / "model.safetensors").write_text("other weights")
    assert pretrained(vision="link", qformer="other") != start
    nodes = dag(*BARE, f"model.initialise_from.vision={tmp_path / 'gone'}")
    with pytest.raises(UserError, match=r"^model\.initialise_from\.vision: no file or folder \S*gone"):
        Workspace(nodes, Store(str(tmp_path / "workspace"))).require(nodes["pretrain[blip2_tiny]"])


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["sources.demo_laion.paths=[world:moon/x.parquet]"], "sources.demo_laion.paths"),
        (["held_out=[]", "tasks.demo_vqa.images=world:moon/x"], "tasks.demo_vqa.images"),
        (["held_out=[]", "benchmarks.demo_vqa.questions=world:moon/x"], "benchmarks.demo_vqa.questions"),
        (["tokenizer.text=[world:moon/x]"], "tokenizer.text.path"),
        (["tokenizer=own", "tokenizer.folder=world:moon/x"], "tokenizer.folder"),
    ],
)
def test_an_unknown_world_is_named_with_its_key_and_the_known_ones(overrides: list[str], key: str) -> None:
    line = complaint(*overrides)
    assert line.startswith(f"{key}=world:moon/x")
    assert line.endswith(": no world moon is configured (known: demo); add world=[moon]")
    assert "\n" not in line


def test_a_world_that_only_the_index_reads_is_named_with_its_key() -> None:
    line = complaint("world=[]", *BARE[:3], "tokenizer=bpe_50k")
    assert line.startswith("held_out.demo_vqa.images=world:demo/images/test: no world demo is configured (known: none)")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("sources.demo_laion.paths=[world:]", r"sources.demo_laion.paths=['world:']: write world:NAME/PATH"),
        ("tasks.demo_vqa.images=world:demo/../x", "tasks.demo_vqa.images='world:demo/../x': an address cannot lead"),
        ("signals.clip.model=world:demo/clip", "signals.clip.model=world:demo/clip: this key takes no file of a world"),
        ("workspace=world:demo/x", "workspace=world:demo/x: this key takes no file of a world"),
        ("benchmarks.demo_vqa.world=demo", "benchmarks.demo_vqa: unknown key world; where a file is named, write"),
    ],
)
def test_a_bad_address_is_one_line_with_the_key(override: str, line: str) -> None:
    found = complaint(override)
    assert found.startswith(line)
    assert "\n" not in found


def searched(*overrides: str) -> dict[str, int]:
    config = dag(*overrides)["index"].config
    assert isinstance(config, IndexConfig)
    return dict(config.search_radius)


def test_near_copies_are_searched_as_far_as_the_index_or_the_selection_says() -> None:
    assert searched() == {"phash": 8}
    assert searched("index.radius=12") == {"phash": 12}
    assert searched("index.radius=3") == {"phash": 8}
    assert searched("selection.contamination.near.radius=10") == {"phash": 10}
    assert searched("selection.contamination.near.hash=phash_rgb", "index.radius=9") == {"phash": 9, "phash_rgb": 9}
    assert searched("selection.duplicates.near=null", "selection.contamination.near=null", "index.radius=9") == {}


def test_crops_are_looked_for_unless_the_selection_leaves_them_in() -> None:
    off = ("selection.contamination.crops=null", "selection.contamination.enabled=false")
    looked = [dag(*overrides)["index"].config for overrides in ([], [off[0]], [off[1]])]
    assert [config.crops for config in looked if isinstance(config, IndexConfig)] == [True, False, False]


def test_a_stale_node_names_keys_and_addresses_as_they_are_configured(tmp_path: Path) -> None:
    before, now = dag(), dag("tasks.demo_vqa.images=world:demo/images/test", "sources.demo_coco.paths=[coco.json]")
    store = Store(str(tmp_path))
    for node in before.values():
        store.set_latest(node.id, Workspace(before, store).record(node))
    workspace = Workspace(now, store)
    task = workspace.changes(now["finetune[blip2_tiny/demo_vqa]"])
    assert "tasks.demo_vqa.images: world:demo/images/train → world:demo/images/test" in task
    source = workspace.changes(now["ingest[demo_coco]"])
    assert "sources.demo_coco.paths: ['world:demo/lists/coco_captions.json'] → None" in source
    assert "input world[demo] was removed" in source
