"""Ids are aligned with the shards, sample by sample."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import webdataset

from stages.artifact import Artifact
from stages.shard.index import scan_tar, to_table
from stages.tokenizer.config import TokenizerConfig
from stages.tokenizer.load import load
from stages.tokenizer.train import train, write
from stages.tokens.config import TokensConfig
from stages.tokens.reader import TokenReader
from stages.tokens.stage import Tokens

CAPTIONS = [["a red circle", "", "ein blauer Kreis"], ["a yellow rectangle, seen from afar"]]


def sealed(folder: Path, mark: str) -> Artifact:
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": mark * 64, "counts": {}, "files": []}))
    return Artifact(str(folder))


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, list[Artifact]]:
    shards, tokenizer = tmp_path / "shards", tmp_path / "tokenizer"
    shards.mkdir()
    tokenizer.mkdir()
    tables, listed = [], []
    for number, captions in enumerate(CAPTIONS):
        name = f"train-{number:05}.tar"
        with open(shards / name, "wb") as file, webdataset.TarWriter(file) as tar:
            for i, caption in enumerate(captions):
                key = f"{number:016x}{i:016x}"
                tar.write({"__key__": key, "png": b"png", "txt": caption, "json": b"{}"})
        tables.append(to_table(scan_tar(shards / name, number)))
        listed.append({"name": name, "samples": len(captions)})
    table = pa.concat_tables(tables, promote_options="permissive").unify_dictionaries()
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    (shards / "index.arrow").write_bytes(sink.getvalue())
    (shards / "dataset.json").write_text(json.dumps({"samples": 4, "shards": listed}))
    config = TokenizerConfig(vocabulary=300, allow_smaller=True)
    write(config, train(config, [c for captions in CAPTIONS for c in captions]), tokenizer)
    return {"shards": [sealed(shards, "a")], "tokenizer": [sealed(tokenizer, "b")]}


def test_every_sample_has_its_own_captions_ids(run_stage: Callable[..., Artifact], inputs: Any) -> None:
    artifact = run_stage(Tokens(TokensConfig()), inputs)
    tokenizer, reader = load(inputs["tokenizer"][0].path()), TokenReader(artifact)
    for shard, captions in enumerate(CAPTIONS):
        for position, caption in enumerate(captions):
            ids = reader.tokens(shard, position)
            assert ids.dtype == np.uint16
            assert tokenizer.decode(ids) == caption


def test_the_order_of_shards_never_changes_a_byte(run_stage: Callable[..., Artifact], inputs: Any) -> None:
    one, other = (run_stage(Tokens(TokensConfig()), inputs, reverse=r).manifest["files"] for r in (False, True))
    assert one == other


def test_the_summary_names_the_tokenizer(run_stage: Callable[..., Artifact], inputs: Any) -> None:
    summary = run_stage(Tokens(TokensConfig()), inputs).read_json("tokens.json")
    assert summary["tokenizer"] == "b" * 64
    assert summary["shards"] == ["train-00000", "train-00001"]
    assert summary["tokens"] > 0


def test_a_position_past_the_shard_is_an_error(run_stage: Callable[..., Artifact], inputs: Any) -> None:
    reader = TokenReader(run_stage(Tokens(TokensConfig()), inputs))
    with pytest.raises(IndexError, match="train-00001 has 1 samples, none at position 1"):
        reader.tokens(1, 1)
