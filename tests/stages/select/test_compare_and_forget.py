"""Comparing and forgetting selections whose ranges differ."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stages.base.artifact import Artifact
from stages.base.forgetting import Forgotten
from stages.base.ranges import as_json
from stages.select.config import SelectConfig, SelectionConfig
from stages.select.forget import forget
from stages.select.report.compare import compare
from tests.stages.select.selecting import select

OLD = {"rules": {"min_words": 3}, "duplicates": {"near": {"radius": 6}}}
NEW = {"rules": {"min_similarity": 0.5}, "max_pairs": {"a": 20}}


@pytest.fixture
def made(make_index, random_rows, tmp_path: Path):
    """A select artifact without its page: `made(selection, range_rows, name)`."""
    rows = random_rows(11, count=80)

    def make(selection: dict[str, Any], range_rows: int, name: str) -> Artifact:
        index = make_index(**rows, range_rows=range_rows)
        config = SelectConfig(selection=SelectionConfig.model_validate({"name": "t", **selection}))
        selected = select(index, config)
        folder = tmp_path / name
        folder.mkdir()
        for decision in selected.decisions:
            pq.write_table(decision.verdicts(), folder / f"verdicts-{decision.number:05d}.parquet")
            pq.write_table(decision.contamination(), folder / f"contamination-{decision.number:05d}.parquet")
        (folder / "ranges.json").write_text(json.dumps(as_json(index.ranges)))
        (folder / "report.json").write_text(json.dumps(selected.report().numbers))
        return sealed(folder)

    return make


def sealed(folder: Path, lists: str = "lists") -> Artifact:
    files = [{"name": file.name} for file in sorted(folder.iterdir()) if file.name != "manifest.json"]
    manifest = {"fingerprint": folder.name, "files": files, "inputs": {"pairs": [lists]}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Artifact(str(folder))


def verdicts(artifact: Artifact) -> dict[str, dict[str, Any]]:
    names = artifact.names("verdicts-*.parquet")
    return {row["uid"]: row for name in names for row in pq.read_table(artifact.path(name)).to_pylist()}


def test_a_comparison_counts_every_pair_whatever_the_ranges(made) -> None:
    old, new = made(OLD, 1000, "old"), made(NEW, 1000, "new")
    found = compare(old, new, set())
    before, after = verdicts(old), verdicts(new)
    moves = Counter((before[uid]["reason"] or "kept", after[uid]["reason"] or "kept") for uid in before)
    moves = Counter({move: pairs for move, pairs in moves.items() if move[0] != move[1]})
    assert {(m["from"], m["to"]): m["pairs"] for m in found["moves"]} == moves
    came = sorted(uid for uid in before if after[uid]["keep"] and not before[uid]["keep"])
    assert found["totals"]["newly_kept"] == len(came) > 0
    assert found["totals"]["kept"] == [sum(row["keep"] for row in rows.values()) for rows in (before, after)]
    assert found["totals"]["pairs"] == [len(before), len(after)]
    first = {after[uid]["image_uid"]: uid for uid in reversed(came)}
    assert [row["uid"] for row in found["shown"]["came"]] == sorted(first.values())[:24]
    for ranges in ((30, 30), (30, 1000)):
        pair = [made(how, size, f"{n}-{ranges}") for n, (how, size) in enumerate(zip((OLD, NEW), ranges, strict=True))]
        for bucket_rows in (10, 10_000):
            assert compare(*pair, set(), bucket_rows) == found


def test_a_pair_that_only_one_selection_lists_is_counted_as_such(made) -> None:
    old, new = made(OLD, 1000, "old"), made(NEW, 1, "new")
    lost = new.names("verdicts-*.parquet")[0]
    gone = pq.read_table(new.path(lost)).num_rows
    new.path(lost).unlink()
    found = compare(old, sealed(Path(new.url)), set(), 25)
    assert sum(move["pairs"] for move in found["moves"] if move["to"] == "not listed") == gone > 0
    assert found["totals"]["pairs"] == [160, 160 - gone]


def test_parts_of_other_lists_are_not_taken_for_the_same_pairs(made) -> None:
    """A list that grew by a row may have as many parts as before, with other pairs in each."""
    old, new = made(OLD, 30, "old"), made(NEW, 30, "new")
    found = compare(old, new, set())
    names = new.names("verdicts-*.parquet")
    tables = [pq.read_table(new.path(name)) for name in names]
    assert len(names) > 2
    for name, table in zip(names, [*tables[1:], tables[0]], strict=True):
        pq.write_table(table, new.path(name))
    assert compare(old, sealed(Path(new.url), "longer lists"), set()) == found


def test_forgetting_rewrites_the_ranges_that_hold_the_pair_and_counts_it_once(made, tmp_path) -> None:
    artifact = made(OLD, 20, "old")
    uid, row = next((uid, row) for uid, row in verdicts(artifact).items() if row["keep"])
    out = tmp_path / "out"
    out.mkdir()
    removal = forget(artifact, {}, Forgotten(frozenset([uid]), frozenset()), out)
    (name,) = removal.rewritten
    assert (removal.samples, removal.counts) == (1, {"kept": -1, "dropped.forgotten": 1, "shown": -row["repeats"]})
    changed = {row["uid"]: row for row in pq.read_table(out / name).to_pylist()}
    assert changed[uid] == {**row, "keep": False, "reason": "forgotten", "detail": "", "repeats": 0}
    (out / name).replace(artifact.path(name))
    again = forget(artifact, {}, Forgotten(frozenset([uid]), frozenset()), None)
    assert not again
    assert again.samples == 0
