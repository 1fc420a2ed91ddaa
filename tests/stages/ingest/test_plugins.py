"""Choosing an adapter by kind, and finding its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.fingerprint import fingerprinted
from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.ingest.files import find
from stages.ingest.plugins import source_class, source_config


def test_each_registered_kind_validates_with_its_own_schema() -> None:
    for kind in ("laion", "datacomp", "cc3m", "cc12m", "coco", "karpathy", "table", "folder"):
        assert type(source_config("s", {"kind": kind, "paths": ["x"]})) is source_class(kind).Config
    assert source_config("s", {"kind": "medical", "paths": ["x"], "reports": ["y"]}).private


def test_an_unknown_kind_names_the_known_ones_and_the_key() -> None:
    with pytest.raises(
        UserError, match=r"sources.mine.kind: .*'loan' is not known .known: cc12m, cc3m, coco, datacomp, folder"
    ):
        source_config("mine", {"kind": "loan", "paths": ["x"]})
    with pytest.raises(UserError, match=r"sources.mine.kind: missing"):
        source_config("mine", {"paths": ["x"]})


def test_a_wrong_key_is_reported_by_name() -> None:
    with pytest.raises(ValidationError) as error:
        source_config("mine", {"kind": "cc3m", "path": ["x"]})
    assert {item["loc"] for item in error.value.errors()} == {("paths",), ("path",)}


def test_paths_are_fingerprinted_inside_a_world_and_not_outside() -> None:
    here = source_config("s", {"kind": "cc3m", "paths": ["/a/x.tsv"]})
    there = source_config("s", {"kind": "cc3m", "paths": ["/b/x.tsv"]})
    assert fingerprinted(here) == fingerprinted(there)
    one = source_config("s", {"kind": "cc3m", "paths": ["world:w/lists/one.tsv"]})
    two = source_config("s", {"kind": "cc3m", "paths": ["world:w/lists/two.tsv"]})
    assert fingerprinted(one) != fingerprinted(two)
    assert source_config("s", one.model_dump()) == one


def test_globs_and_folders_are_expanded_and_named_from_their_common_folder(tmp_path: Path) -> None:
    for name in ("b/2.tsv", "a/1.tsv", "a/deep/3.tsv", "a/note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [file.name for file in find([f"{tmp_path}/**/*.tsv"], "k").files] == ["a/1.tsv", "a/deep/3.tsv", "b/2.tsv"]
    assert [file.name for file in find([f"{tmp_path}/a"], "k").files] == ["1.tsv", "deep/3.tsv", "note.txt"]
    assert [file.name for file in find([f"{tmp_path}/a/1.tsv"], "k").files] == ["1.tsv"]


def test_files_of_several_places_that_are_named_alike_stay_apart(tmp_path: Path) -> None:
    for folder in ("own", "one", "two"):
        (tmp_path / folder / "lists").mkdir(parents=True)
        (tmp_path / folder / "lists" / "a.tsv").write_text(folder)
    manifests = {name: {"node": f"world[{name}]", "files": [{"name": "lists/a.tsv"}]} for name in ("one", "two")}
    for name, manifest in manifests.items():
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
    inputs = {"world": tuple(Artifact(str(tmp_path / name)) for name in manifests)}
    alone = find(["world:one/lists/*.tsv"], "k", {"world": inputs["world"][:1]})
    assert [file.name for file in alone.files] == ["a.tsv"]
    files = find(["world:two/lists", f"{tmp_path}/own/lists/a.tsv", "world:one/lists/a.tsv"], "k", inputs)
    assert [file.name for file in files.files] == ["a.tsv", "one/a.tsv", "two/a.tsv"]
    assert [Path(file.url).read_text() for file in files.files] == ["own", "one", "two"]


def test_external_files_are_all_inputs_and_a_missing_one_names_its_key(tmp_path: Path) -> None:
    scans, reports = tmp_path / "scans", tmp_path / "reports.csv"
    scans.mkdir()
    (scans / "1.dcm").write_text("x")
    reports.write_text("x")
    config = source_config("s", {"kind": "medical", "paths": [str(scans)], "reports": [str(reports)]})
    assert config.external_files("sources.s") == [str(scans / "1.dcm"), str(reports)]
    reports.unlink()
    # The folder's name may be the patient's: of a private source the message says which entry, not what is in it.
    with pytest.raises(UserError, match=r"sources\.s\.reports: nothing at place 1 of the list") as raised:
        config.external_files("sources.s")
    assert str(tmp_path) not in str(raised.value)
    world = source_config("s", {"kind": "cc3m", "paths": ["world:demo/lists/x.tsv"]})
    assert world.external_files("sources.s") == []


def test_a_private_source_of_any_kind_does_not_tell_where_it_looked(tmp_path: Path) -> None:
    gone = tmp_path / "Quellbrunn"
    config = source_config("s", {"kind": "folder", "private": True, "paths": [str(gone)], "images": str(gone)})
    for ask in (config.external_files, config.external_images):
        with pytest.raises(UserError, match=r"^sources\.s\.\w+: nothing at place 1") as raised:
            ask("sources.s")
        assert "Quellbrunn" not in str(raised.value)
