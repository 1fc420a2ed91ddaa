"""Ids are aligned with the shards, sample by sample."""

from __future__ import annotations

import hashlib
import json
import pickle
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.forgetting.forget_list import ForgetList
from pipelines.forgetting.leftovers import drop_cache_entries
from pipelines.forgetting.plan import ForgetPlan
from pipelines.store import Store
from stages.base.artifact import Artifact, file_sha256
from stages.base.contract import UserError
from stages.base.forgetting import Forgotten
from stages.shard.index import to_table, write_index
from stages.shard.scan import scan_tar
from stages.tokenizer.config import TokenizerConfig
from stages.tokenizer.load import load
from stages.tokenizer.train import train, write
from stages.tokens.cache import TokenCache
from stages.tokens.config import TokensConfig
from stages.tokens.encode import Encoded
from stages.tokens.forget import forget
from stages.tokens.reader import TokenReader
from stages.tokens.stage import Tokens

CAPTIONS = [["a red circle", "", "ein blauer Kreis"], ["a yellow rectangle, seen from afar", "赤い丸"]]


def sealed(folder: Path, mark: str, **manifest: Any) -> Artifact:
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": mark * 64, "counts": {}, "files": [], **manifest}))
    return Artifact(str(folder))


def uid(caption: str) -> str:
    return hashlib.md5(caption.encode()).hexdigest()


def write_shards(folder: Path, shards: Sequence[Sequence[str | None]], mark: str = "a") -> Artifact:
    """Captions without a Latin letter come from source `far`, the others from `near`; None is an image without one."""
    folder.mkdir()
    tables, listed = [], []
    for number, captions in enumerate(shards):
        name = f"train-{number:05}.tar"
        with open(folder / name, "wb") as file, webdataset.TarWriter(file, mtime=0) as tar:
            for number_in, caption in enumerate(captions):
                if caption is None:
                    key = uid(f"image {number_in}")
                    record = {"uid": key, "source": "images"}
                    tar.write({"__key__": key, "png": b"png", "json": json.dumps(record).encode()})
                    continue
                record = {"uid": uid(caption), "source": "near" if caption.isascii() else "far"}
                tar.write({"__key__": uid(caption), "png": b"png", "txt": caption, "json": json.dumps(record).encode()})
        tables.append(to_table(scan_tar(folder / name, number)))
        listed.append({"name": name, "samples": len(captions), "sha256": file_sha256(folder / name)})
    write_index(folder / "index.arrow", tables)
    (folder / "dataset.json").write_text(json.dumps({"samples": sum(map(len, shards)), "shards": listed}))
    return sealed(folder, mark)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, list[Artifact]]:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    config = TokenizerConfig(vocabulary=300, allow_smaller=True)
    write(config, train(config, [c for captions in CAPTIONS for c in captions]), tokenizer)
    return {"shards": [write_shards(tmp_path / "shards", CAPTIONS)], "tokenizer": [sealed(tokenizer, "b")]}


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
    assert summary["tokens"] == sum(source["tokens"] for source in summary["sources"].values())
    assert {name: source["samples"] for name, source in summary["sources"].items()} == {"near": 4, "far": 1}


def test_a_position_past_the_shard_is_an_error(run_stage: Callable[..., Artifact], inputs: Any) -> None:
    reader = TokenReader(run_stage(Tokens(TokensConfig()), inputs))
    with pytest.raises(IndexError, match="train-00001 has 2 samples, none at position 2"):
        reader.tokens(1, 2)
    with pytest.raises(IndexError, match="train-00001 has 2 samples, none at position 2"):
        reader.lengths(np.array([0, 1]), np.array([0, 2]))


def test_lengths_of_many_are_those_of_each_and_nothing_is_opened_before(
    run_stage: Callable[..., Artifact], inputs: Any, tmp_path: Path
) -> None:
    artifact = run_stage(Tokens(TokensConfig()), inputs)
    reader = pickle.loads(pickle.dumps(TokenReader(artifact)))
    shards, positions = np.array([1, 0, 0, 1, 0, 1]), np.array([1, 2, 0, 0, 1, 1])
    expected = [len(reader.tokens(int(s), int(p))) for s, p in zip(shards, positions, strict=True)]
    assert reader.lengths(shards, positions).tolist() == expected
    assert reader.lengths(shards[:0], positions[:0]).tolist() == []
    TokenReader(Artifact(str(tmp_path / "nowhere")))


def test_only_a_shard_that_changed_is_encoded_again(
    run_stage: Callable[..., Artifact], inputs: Any, tmp_path: Path
) -> None:
    cache, stage = tmp_path / "cache", Tokens(TokensConfig())
    run_stage(stage, inputs, cache=cache)
    changed = [CAPTIONS[0], ["ein gelbes Rechteck", *CAPTIONS[1][1:]]]
    second = {**inputs, "shards": [write_shards(tmp_path / "second", changed, "c")]}
    fresh = run_stage(stage, second)
    # The tar of the shard that stayed is not even there to read.
    Path(second["shards"][0].url, "train-00000.tar").unlink()
    assert run_stage(stage, second, cache=cache).manifest["files"] == fresh.manifest["files"]
    Path(second["shards"][0].url, "train-00001.tar").unlink()
    assert run_stage(stage, second, cache=cache).manifest["files"] == fresh.manifest["files"]
    with pytest.raises(UserError, match=r"train-00000.tar, sample .* the shard is missing; run the shard stage again"):
        run_stage(stage, second)


def test_another_tokenizer_encodes_every_shard_again_but_another_frame_does_not(
    run_stage: Callable[..., Artifact], inputs: Any, tmp_path: Path
) -> None:
    cache, stage = tmp_path / "cache", Tokens(TokensConfig())
    first = run_stage(stage, inputs, cache=cache)
    file = Path(inputs["tokenizer"][0].url, "tokenizer.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "truncation": None, "post_processor": None, "version": "1.0"}))
    run_stage(stage, inputs, cache=cache)
    assert len(list(cache.rglob("*.parquet"))) == 2
    content["model"]["merges"].pop()
    file.write_text(json.dumps(content))
    other = run_stage(stage, inputs, cache=cache)
    assert len(list(cache.rglob("*.parquet"))) == 4
    assert other.manifest["files"] != first.manifest["files"]


def test_losses_of_an_imported_tokenizer_are_counted_by_source_and_losses_of_our_own_are_an_error(
    run_stage: Callable[..., Artifact], inputs: Any
) -> None:
    folder = Path(inputs["tokenizer"][0].url)
    bare = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2, "red": 3}, unk_token="<unk>")
    )
    bare.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    bare.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(RuntimeError, match=r"loses text of shard train-00000.tar: .*'round_trip_failed': 2"):
        run_stage(Tokens(TokensConfig()), inputs)
    brought = {**inputs, "tokenizer": [sealed(folder, "d", config={"brought": True})]}
    artifact = run_stage(Tokens(TokensConfig()), brought)
    assert {name: artifact.counts[name] for name in ("round_trip_failed", "unknown")} == {
        "round_trip_failed": 4,
        "unknown": 1 + 3 + 5 + 1,
    }
    assert artifact.read_json("tokens.json")["sources"]["far"] == {
        "samples": 1,
        "tokens": 1,
        "round_trip_failed": 1,
        "unknown": 1,
    }


def test_a_forgotten_captions_ids_stay_neither_in_the_artifact_nor_in_the_cache(
    run_stage: Callable[..., Artifact], inputs: Any, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "workspace"))
    cache = Path(store.cache("tokens"))
    artifact = run_stage(Tokens(TokensConfig()), inputs, cache=cache)
    kept = {path: path.read_bytes() for path in cache.rglob("*.parquet")}
    gone = uid("ein blauer Kreis")
    entries = ForgetList(frozenset({gone}), frozenset(), frozenset(), frozenset())
    assert drop_cache_entries(store, ForgetPlan(pairs={gone}), entries, dry_run=False) == 1
    assert len(kept) == 2
    assert len(list(cache.rglob("*.parquet"))) == 1
    out = tmp_path / "out"
    out.mkdir()
    removal = forget(artifact, {"shards": inputs["shards"]}, Forgotten(frozenset({gone}), frozenset()), out)
    left = write_shards(tmp_path / "left", [CAPTIONS[0][:2], CAPTIONS[1]], "a")
    again = run_stage(Tokens(TokensConfig()), {**inputs, "shards": [left]})
    assert sorted(removal.rewritten) == ["tokens.json", "train-00000.ids.npy", "train-00000.offsets.npy"]
    assert all((out / name).read_bytes() == again.path(name).read_bytes() for name in removal.rewritten)


def test_an_image_without_a_text_has_no_ids_and_can_be_forgotten(
    run_stage: Callable[..., Artifact], inputs: Any, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path / "mixed", [["a red circle", None, "ein blauer Kreis", None], [None]])
    artifact = run_stage(Tokens(TokensConfig()), {**inputs, "shards": [shards]})
    reader = TokenReader(artifact)
    assert [len(reader.tokens(0, n)) > 0 for n in range(4)] == [True, False, True, False]
    assert len(reader.tokens(1, 0)) == 0
    content = artifact.read_json("tokens.json")
    assert content["sources"]["images"] == {"samples": 3, "tokens": 0, "round_trip_failed": 0, "unknown": 0}
    out = tmp_path / "out"
    out.mkdir()
    gone = Forgotten(frozenset({uid("image 3"), uid("a red circle")}), frozenset())
    forget(artifact, {"shards": (shards,)}, gone, out)
    assert np.diff(np.load(out / "train-00000.offsets.npy")).tolist() == [0, len(reader.tokens(0, 2))]
    assert json.loads((out / "tokens.json").read_text())["sources"]["images"]["samples"] == 2


@given(st.lists(st.lists(st.integers(0, 299), max_size=5), max_size=9), st.booleans(), st.sampled_from([None, 0, 7]))
@settings(max_examples=40, deadline=None)
def test_kept_ids_come_back_as_they_were(rows: list[list[int]], wide: bool, unknown: int | None) -> None:
    flat = np.array([i for row in rows for i in row], dtype=np.uint32 if wide else np.uint16)
    encoded = Encoded(
        flat, np.cumsum([0, *map(len, rows)], dtype=np.int64), np.array([len(r) % 2 == 0 for r in rows], bool)
    )
    assert encoded.unknown(unknown).tolist() == [row.count(unknown) for row in rows]  # type: ignore[arg-type]
    uids = pa.array([f"{n:032x}" for n in range(len(rows))], pa.string())
    with tempfile.TemporaryDirectory() as folder:
        cache = TokenCache(folder, "tokenizer")
        cache.put("shard", uids, encoded)
        back = cache.get("shard", uids)
        assert cache.get("shard", pa.array(["other"] * len(rows), pa.string())) is None
        assert cache.get("another", uids) is None
    if not rows:
        assert back is None
        return
    assert back is not None
    for name in ("ids", "offsets", "changed"):
        one, other = getattr(back, name), getattr(encoded, name)
        assert one.dtype == other.dtype
        assert one.tolist() == other.tolist()
