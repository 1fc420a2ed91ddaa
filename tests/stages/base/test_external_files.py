"""Files of one's own and addresses of files in a world: what each is, how it is fingerprinted, where it leads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.fingerprint import fingerprinted
from stages.base.artifact import Artifact
from stages.base.contract import NotFingerprinted, StageConfig
from stages.base.external_files import (
    Address,
    ExternalFile,
    ExternalFilesConfig,
    addresses,
    find_in_worlds,
    local_path,
    misplaced_addresses,
    own_files,
    parse,
    resolve,
    with_addresses,
)


class Lists(ExternalFilesConfig):
    """A config as a source's."""

    paths: Annotated[tuple[str, ...], ExternalFile]
    images: Annotated[str | None, ExternalFile] = None
    note: str = ""
    other: Annotated[str, NotFingerprinted] = ""


class Run(StageConfig):
    """A config with others in it."""

    lists: dict[str, Lists] = {}
    folder: Annotated[str | None, ExternalFile] = None


def world(folder: Path, name: str) -> Artifact:
    (folder / "lists").mkdir(parents=True)
    (folder / "lists" / "a.tsv").write_text(name)
    listed = [{"name": "lists/a.tsv"}]
    (folder / "manifest.json").write_text(json.dumps({"node": f"world[{name}]", "files": listed}))
    return Artifact(str(folder))


@given(st.from_regex(r"[A-Za-z0-9_.-]+", fullmatch=True), st.from_regex(r"\w[\w ./*-]*", fullmatch=True))
def test_an_address_reads_as_it_is_written(name: str, path: str) -> None:
    if ".." not in path.split("/"):
        assert parse(f"world:{name}/{path}") == Address(name, path)
        assert str(Address(name, path)) == f"world:{name}/{path}"


@pytest.mark.parametrize("value", ["world:", "world:demo", "world:demo/", "world:/x", "world://x/y", "world:demo//x"])
def test_an_address_without_name_or_path_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match=r"write world:NAME/PATH .* or \./world:.* for a file of your own"):
        Lists(paths=(value,))


@pytest.mark.parametrize("value", ["world:demo/..", "world:demo/../x", "world:demo/a/../../x"])
def test_an_address_that_leads_out_of_its_world_is_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="cannot lead out of its world"):
        Lists(paths=("a.tsv",), images=value)


@pytest.mark.parametrize("value", ["x.tsv", "s3://bucket/x", "/world:demo/x", "./world:demo/x", "worlds:x/y"])
def test_anything_else_is_a_file_of_ones_own(value: str, tmp_path: Path) -> None:
    assert parse(value) is None
    inputs = {"world": (world(tmp_path / "w", "demo"),)}
    assert (resolve(value, inputs), local_path(value, inputs), find_in_worlds(value, inputs)) == (
        value,
        Path(value),
        None,
    )


def test_the_former_key_is_refused_and_says_what_to_write() -> None:
    with pytest.raises(ValidationError, match="unknown key world; where a file is named, write world:demo/PATH"):
        Lists.model_validate({"world": "demo", "paths": ["a.tsv"]})
    with pytest.raises(ValidationError, match="unknown key world; leave it out"):
        Lists.model_validate({"world": None, "paths": ["a.tsv"]})


def test_of_ones_own_files_no_path_is_fingerprinted() -> None:
    here, there = Lists(paths=("a.tsv",), images="here"), Lists(paths=("b.tsv", "c.tsv"))
    assert fingerprinted(here) == fingerprinted(there) == {"note": "", "world": None, "world_files": {}}
    assert fingerprinted(Run(folder="here")) == fingerprinted(Run(folder="there")) == {"lists": {}}


def test_addresses_are_fingerprinted_as_when_the_world_was_a_field() -> None:
    config = Lists(paths=("world:demo/lists/a.tsv",), images="world:demo/.")
    inside = {"paths": ["lists/a.tsv"], "images": "."}
    assert fingerprinted(config) == {"note": "", "world": "demo", "world_files": inside}
    assert fingerprinted(Run(folder="world:demo/x"))["folder"] == ["world:demo/x"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("world:a/x",), ("world:b/x",)),
        (("world:a/x",), ("world:a/y",)),
        (("world:a/x", "y"), ("world:a/x", "world:a/y")),
        (("world:a/x", "world:a/y"), ("world:a/x", "world:b/y")),
        (("world:a/x", "world:b/y"), ("world:a/x", "world:b/z")),
    ],
)
def test_another_address_is_another_fingerprint(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert fingerprinted(Lists(paths=one)) != fingerprinted(Lists(paths=other))


def test_the_files_of_a_config_are_listed_by_what_they_are() -> None:
    mixed = Lists(paths=("a.tsv", "world:demo/lists/*.tsv"), images="world:other/i", note="world peace")
    config = Run(lists={"mine": mixed}, folder="tokenizer")
    assert addresses(config) == [
        ("lists.mine.paths", Address("demo", "lists/*.tsv")),
        ("lists.mine.images", Address("other", "i")),
    ]
    assert own_files(config) == ["a.tsv", "tokenizer"]


def test_an_address_in_a_field_of_something_else_is_named() -> None:
    config = Run(lists={"mine": Lists(paths=("a",), note="world: {}", other="world:demo/x")})
    assert misplaced_addresses(config) == [
        "lists.mine.other=world:demo/x: this key takes no file of a world; name a file of your own"
    ]


def test_an_address_leads_into_the_world_of_its_name(tmp_path: Path) -> None:
    one, other = world(tmp_path / "1", "one"), world(tmp_path / "2", "other")
    inputs: dict[str, Any] = {"pairs": (one,), "worlds": (one, other)}
    assert local_path("world:other/lists/a.tsv", inputs).read_text() == "other"
    assert resolve("world:one/lists", inputs) == f"{tmp_path}/1/lists"
    assert resolve("world:one/.", inputs) == f"{tmp_path}/1"
    with pytest.raises(KeyError, match="no input is the world third"):
        resolve("world:third/x", inputs)


def test_a_remote_world_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("PAIRMILL_CACHE", str(tmp_path / "cache"))
    with fsspec.open("memory://made/lists/a.tsv", "w") as file:
        file.write("far")
    with fsspec.open("memory://made/manifest.json", "w") as file:
        file.write(json.dumps({"fingerprint": "f", "files": [{"name": "lists/a.tsv"}]}))
    inputs = {"world": (Artifact("memory://made"),)}
    assert resolve("world:w/lists/a.tsv", inputs) == "memory://made/lists/a.tsv"
    assert local_path("world:w/lists/a.tsv", inputs).read_text() == "far"
    assert (local_path("world:w/lists", inputs) / "a.tsv").read_text() == "far"


def test_messages_show_addresses_as_they_are_configured() -> None:
    mixed = Lists(paths=("world:demo/a.tsv", "world:other/b.tsv"), images="world:demo/i", note="n")
    assert with_addresses(fingerprinted(Run(lists={"mine": mixed}))) == {
        "lists": {"mine": {"note": "n", "paths": ["world:demo/a.tsv", "world:other/b.tsv"], "images": "world:demo/i"}}
    }
    own = Run(lists={"mine": Lists(paths=("a",))})
    assert with_addresses(fingerprinted(own)) == {"lists": {"mine": {"note": ""}}}
