"""Forgetting takes samples out of every artifact that has them, touches nothing else, and survives a kill anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.forgetting.forget import ForgetResult, forget
from pipelines.forgetting.forget_list import read_forget_list
from stages.base.artifact import Artifact, file_sha256
from stages.base.contract import UserError
from stages.base.tombstones import Tombstones
from stages.index.reader import Index
from stages.shard.reader import ShardReader
from stages.tokens.reader import TokenReader


def forgetting(mill: Any, *entries: str, dry_run: bool = False) -> ForgetResult:
    return forget(mill.store, read_forget_list(entries, "list"), None, dry_run)


def check_whole(mill: Any) -> None:
    """Every artifact holds what its manifest lists, and positions point at what they say."""
    for artifact in mill.made():
        for entry in artifact.manifest["files"]:
            path = artifact.path(entry["name"])
            assert (path.stat().st_size, file_sha256(path)) == (entry["size"], entry["sha256"]), path
        there = {p.relative_to(artifact.url).as_posix() for p in Path(artifact.url).rglob("*") if p.is_file()}
        assert there - {"manifest.json", "run.json", "_lock", "_tracking.json"} == set(artifact.names())
        assert min(artifact.counts.values(), default=0) >= 0
    shards, tokens = ShardReader(mill.of("shard")), TokenReader(mill.of("tokens"))
    ids = 0
    for shard in range(len(shards.shards)):
        for position, sample in enumerate(shards.of_shard(shard)):
            meta, stored = shards.meta(sample), shards.sample(sample)
            assert (meta["uid"], meta["caption"]) == (stored.uid, stored.caption)
            assert hashlib.sha256(stored.image_bytes).hexdigest() == meta["sha256"]
            ids += len(tokens.tokens(shard, position))
    assert ids == tokens.artifact.counts["tokens"] == tokens.artifact.read_json("tokens.json")["tokens"]
    assert len(shards) == mill.of("shard").counts["samples"] == tokens.artifact.counts["samples"]
    index = Index(mill.of("index"))
    images = [row for each in index.ranges for row in index.images(each.number).to_pylist()]
    raws = {a.fingerprint: a for a in mill.made() if a.manifest["stage"] == "download"}
    marks = index.artifact.manifest["inputs"]["raw"]
    for row in images:
        if row["shard"] is not None:
            with raws[marks[row["source"]]].open(f"raw-{row['shard']:05}.tar") as tar:
                tar.seek(row["offset"] - 512)
                assert tar.read(32).decode() == row["image_uid"].hex()


def kept_pairs(mill: Any, source: str) -> list[dict[str, Any]]:
    verdicts = mill.verdicts()
    return [row for row in mill.pairs(source) if verdicts[row["uid"]]["keep"]]


def test_a_pair_goes_alone_and_its_image_stays_for_the_others(mill: Any) -> None:
    counts: dict[str, int] = {}
    for row in kept_pairs(mill, "demo_coco"):
        counts[row["image_uid"]] = counts.get(row["image_uid"], 0) + 1
    image = next(uid for uid, n in counts.items() if n > 1)
    first, *others = [row for row in kept_pairs(mill, "demo_coco") if row["image_uid"] == image]
    before = mill.files()
    result = forgetting(mill, first["uid"])
    check_whole(mill)
    assert result.plan.pairs == {first["uid"]}
    assert result.plan.images == set()
    assert {row["uid"] for row in mill.pairs("demo_coco")} >= {row["uid"] for row in others}
    verdict = mill.verdicts()[first["uid"]]
    assert (verdict["keep"], verdict["reason"], verdict["repeats"]) == (False, "forgotten", 0)
    # One shard held it: the other tars were not even touched, nor was anything of another source, nor the raw image.
    after = mill.files()
    changed = {name for name in before if after.get(name) != before[name]}
    assert len([name for name in changed if "/train-" in name and name.endswith(".tar")]) == 1
    assert not [name for name in changed if "/download/" in name or "demo_cc3m" in name or "demo_medical" in name]


def test_an_image_without_a_pair_left_goes_too(mill: Any) -> None:
    rows = mill.pairs("demo_coco")
    image = kept_pairs(mill, "demo_coco")[0]["image_uid"]
    forgetting(mill, *(row["uid"] for row in rows if row["image_uid"] == image))
    check_whole(mill)
    raw = mill.of("download", "demo_coco")
    attempts = pa.concat_tables([pq.read_table(raw.path(name)) for name in raw.names("attempts-*")])
    assert image not in attempts["image_uid"].to_pylist()
    index = Index(mill.of("index"))
    uids = [uid.hex() for each in index.ranges for uid in index.images(each.number)["image_uid"].to_pylist()]
    assert image not in uids
    assert len(uids) > 1


def test_nothing_of_it_is_left_in_any_file(mill: Any) -> None:
    (row, other) = kept_pairs(mill, "demo_coco")[0], kept_pairs(mill, "demo_cc3m")[0]
    raw = mill.of("download", "demo_cc3m")
    attempts = [r for name in raw.names("attempts-*") for r in pq.read_table(raw.path(name)).to_pylist()]
    digest = next(r["sha256"] for r in attempts if r["image_uid"] == other["image_uid"])
    picture = ShardReader(mill.of("shard"))
    stored = next(picture.sample(i) for i in range(len(picture)) if picture.sample(i).uid == row["uid"])
    page = mill.of("select").path("report.html").read_text("utf-8")
    assert row["image_uid"] in page or other["image_uid"] in page
    assert mill.command("report").returncode == 0
    forgetting(mill, row["url"], digest)
    check_whole(mill)
    marks = [row["url"].encode(), row["image_uid"].encode(), other["image_uid"].encode(), stored.image_bytes]
    for path in mill.root.rglob("*"):
        if not path.is_file() or "world" in path.parts or path.name in ("forgotten.json", "rejects.parquet"):
            continue
        # Uids may stay where they say what is forgotten: verdicts, and clusters of the report's figures.
        searched = marks if path.suffix in (".tar", ".arrow", ".html") else [marks[0], marks[3]]
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content = json.dumps(pq.read_table(path).to_pylist(), default=repr).encode()
        assert not [mark for mark in searched if mark in content], path


def test_it_reads_as_if_it_had_never_been_there(mill: Any, made: Any, tmp_path: Path) -> None:
    """The rewritten artifacts equal, byte for byte, those of a workspace that never knew the samples."""
    last = max(mill.pairs("demo_medical"), key=lambda row: row["image_uid"])["image_uid"]
    forgetting(mill, last)
    fresh = type(mill)(tmp_path / "fresh")
    fresh.root.mkdir()
    (fresh.root / "forgotten.json").write_bytes((mill.root / "forgotten.json").read_bytes())
    import shutil

    shutil.copytree(made.root / "artifacts" / "world", fresh.root / "artifacts" / "world")
    fresh.make(stages=("ingest", "download", "signals", "index"))
    for stage in ("ingest", "download", "signals", "index"):
        ours, theirs = (m.of(stage, "demo_medical" if stage != "index" else "") for m in (mill, fresh))
        assert ours.fingerprint == theirs.fingerprint
        for name in ours.names():
            if not name.startswith(("rejects", "preview", "files")):
                assert ours.path(name).read_bytes() == theirs.path(name).read_bytes(), name


def test_later_runs_do_not_bring_it_back(mill: Any) -> None:
    row, private = kept_pairs(mill, "demo_coco")[0], kept_pairs(mill, "demo_medical")[0]
    raw = mill.of("download", "demo_cc3m")
    digest = pq.read_table(raw.path("attempts-00000.parquet"))["sha256"].drop_null()[0].as_py()
    content = [
        r["image_uid"]
        for n in raw.names("attempts-*")
        for r in pq.read_table(raw.path(n)).to_pylist()
        if r["sha256"] == digest
    ]
    forgetting(mill, row["url"], private["uid"], digest)
    gone = {private["uid"]} | {r["uid"] for r in mill.pairs("demo_cc3m") if r["image_uid"] in content}
    mill.make("ingest.pairs_per_file=9", "shard.seed=1")
    reread = [Artifact(a.url) for a in mill.made() if a.manifest["stage"] == "ingest"]
    uids = {u for a in reread for n in a.names("pairs-*") for u in pq.read_table(a.path(n))["uid"].to_pylist()}
    assert not uids & gone
    urls = {u for a in reread for n in a.names("pairs-*") for u in pq.read_table(a.path(n))["url"].to_pylist()}
    assert row["url"] not in urls
    shards = [a for a in mill.made() if a.manifest["stage"] == "shard"]
    assert len(shards) == 2
    for artifact in shards:
        reader = ShardReader(artifact)
        metas = [reader.meta(i) for i in range(len(reader))]
        assert not [m for m in metas if m["uid"] in gone or m["url"] == row["url"] or m["sha256"] == digest]


def test_a_domain_stands_for_all_its_addresses(mill: Any) -> None:
    result = forgetting(mill, "COCO.demo.pairmill.test")
    check_whole(mill)
    assert mill.pairs("demo_coco") == []
    assert len(result.plan.images) > 5
    assert mill.of("download", "demo_coco").counts["images"] == 0
    assert Tombstones.load(mill.store.tombstones).covers_url("http://coco.demo.pairmill.test/new.jpg")


def test_doing_it_again_changes_nothing(mill: Any) -> None:
    row = kept_pairs(mill, "demo_coco")[0]
    forgetting(mill, row["image_uid"])
    before = mill.files()
    again = forgetting(mill, row["image_uid"])
    assert again.removals == []
    assert mill.files() == before


def test_a_dry_run_says_the_same_and_changes_nothing(mill: Any) -> None:
    row = kept_pairs(mill, "demo_coco")[0]
    before = mill.files()
    dry = forgetting(mill, row["image_uid"], dry_run=True)
    assert mill.files() == before
    assert not (mill.root / "forgotten.json").exists()
    real = forgetting(mill, row["image_uid"])

    def shape(result: ForgetResult) -> list[tuple[str, int, list[str], list[str]]]:
        return [(a.url, r.samples, sorted(r.rewritten), r.deleted) for a, r in result.removals]

    assert shape(dry) == shape(real)


@pytest.mark.parametrize("moment", [0, 1, 3, 8, 13, 21, 34, 41])
def test_a_kill_at_any_moment_is_made_good_by_running_it_again(
    copy: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Cut off at some renaming of a file (everything that lasts is brought about by one)."""
    whole, cut = copy("whole"), copy("cut")
    private = kept_pairs(whole, "demo_medical")[0]["image_uid"]
    entries = (kept_pairs(whole, "demo_coco")[0]["url"], private)
    expected = forgetting(whole, *entries)
    count, replace = 0, os.replace

    def dying(source: Any, target: Any) -> None:
        nonlocal count
        if count == moment:
            raise KeyboardInterrupt
        count += 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            forgetting(cut, *entries)
    again = forgetting(cut, *entries)
    check_whole(cut)
    assert {k: v[0] for k, v in cut.files().items()} == {k: v[0] for k, v in whole.files().items()}
    assert (cut.root / "forgotten.json").read_bytes() == (whole.root / "forgotten.json").read_bytes()
    assert [(m.node, n) for m, n in again.models] == [(m.node, n) for m, n in expected.models]
    assert not (cut.root / "forgetting.json").exists()


def test_nothing_is_made_of_what_is_half_forgotten(mill: Any) -> None:
    """The files of an index refer to one another by row: some of before and some of after would mix up images."""
    (mill.root / "forgetting.json").write_text("{}")
    done = mill.command("run", "data")
    assert done.returncode == 2
    assert "`pairmill forget` is at work there, or was stopped" in done.stderr
    assert done.stderr.count("\n") == 1


def test_models_that_saw_it_are_named_and_others_are_not(mill: Any) -> None:
    shards = mill.of("shard").fingerprint
    mill.train("pretrain[a]", "a" * 64, {"shards": [shards]})
    mill.train("finetune[a/vqa]", "b" * 64, {"model": ["a" * 64]})
    mill.train("pretrain[other]", "c" * 64, {"shards": ["d" * 64]})
    dropped = next(uid for uid, row in mill.verdicts().items() if row["reason"].startswith("rule."))
    assert forgetting(mill, dropped).models == []
    kept = [row["uid"] for row in kept_pairs(mill, "demo_coco")[:2]]
    assert [(m.node, n) for m, n in forgetting(mill, kept[0]).models] == [("pretrain[a]", 1), ("finetune[a/vqa]", 1)]
    assert [(m.node, n) for m, n in forgetting(mill, kept[1]).models] == [("pretrain[a]", 2), ("finetune[a/vqa]", 2)]


def test_trained_models_are_not_made_stale(mill: Any) -> None:
    forgetting(mill, kept_pairs(mill, "demo_coco")[0]["uid"])
    states = json.loads(mill.command("status", "--json").stdout)
    made = [row for row in states if row["stage"] not in ("pretrain", "finetune", "evaluate")]
    assert {row["standing"] for row in made} == {"up to date"}


def test_unfinished_work_that_holds_it_is_made_again_and_only_that(mill: Any) -> None:
    artifact = mill.of("ingest", "demo_coco")
    artifact_dir = mill.store.artifact_dir("download", "demo_coco", "e" * 64)
    (Path(artifact_dir.url) / "_parts").mkdir(parents=True)
    from pipelines.store import Commit

    names = artifact.names("pairs-*.parquet")
    for number, name in enumerate(names):
        table = pq.read_table(artifact.path(name), columns=["image_uid", "url"])
        pq.write_table(table, Path(artifact_dir.url, f"attempts-{number:05}.parquet"))
        artifact_dir.commit(f"{number:05}", Commit([{"name": f"attempts-{number:05}.parquet"}], [], {}))
    image = pq.read_table(artifact.path(names[1]))["image_uid"][0].as_py()
    result = forgetting(mill, image)
    assert result.partitions == 1
    assert artifact_dir.committed() == {f"{n:05}" for n in range(len(names))} - {"00001"}
    assert not Path(artifact_dir.url, "attempts-00001.parquet").exists()


def test_a_workspace_at_work_is_refused(mill: Any) -> None:
    with mill.artifact_dir(mill.of("shard")).lock(), pytest.raises(UserError, match="another pairmill run"):
        forgetting(mill, "0" * 32)
    assert not (mill.root / "forgotten.json").exists()


def test_a_list_says_which_line_is_wrong() -> None:
    entries = read_forget_list(["# a comment", "", "A" * 32, "b" * 64, "http://x/y", "Example.com."], "list.txt")
    assert (entries.uids, entries.sha256) == ({"a" * 32}, {"b" * 64})
    assert (entries.urls, entries.domains) == ({"http://x/y"}, {"example.com"})
    for bad in ("example.com/path", "ftp://x/y", "deadbeef", "two words.com", "-"):
        with pytest.raises(UserError, match=r"list.txt, line 2: neither a uid"):
            read_forget_list(["a.com", bad], "list.txt")
    with pytest.raises(UserError, match="nothing to forget"):
        read_forget_list(["# only"], "list.txt")


def test_the_command_prints_what_it_did_and_never_the_list(mill: Any, tmp_path: Path) -> None:
    shards = mill.of("shard").fingerprint
    mill.train("pretrain[a]", "a" * 64, {"shards": [shards]})
    row = kept_pairs(mill, "demo_coco")[0]
    (tmp_path / "list.txt").write_text(row["url"] + "\n")
    dry = mill.command("forget", str(tmp_path / "list.txt"), "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "nothing was changed" in dry.stdout
    done = mill.command("forget", str(tmp_path / "list.txt"))
    assert done.returncode == 0, done.stderr
    assert "pretrain[a] aaaaaaaaaaaa" in done.stdout
    assert "download[demo_coco]" in done.stdout
    assert row["url"] not in done.stdout + dry.stdout
    check_whole(mill)


def test_a_missing_list_is_one_line(mill: Any) -> None:
    done: subprocess.CompletedProcess[str] = mill.command("forget", "nowhere.txt")
    assert done.returncode == 2
    assert done.stderr.startswith("pairmill: nowhere.txt: cannot be read")


def test_files_are_swapped_in_an_object_store_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.forgetting.swap import STAGING, complete, replace_files, staging
    from pipelines.lineage import Lineage
    from pipelines.store import ArtifactDir, Store
    from stages.base.forgetting import Removal

    monkeypatch.setenv("PAIRMILL_CACHE", str(tmp_path / "cache"))
    store = Store("memory://forgetting/workspace")
    artifact_dir = store.artifact_dir("shard", "", "a" * 64)
    for name in ("one.txt", "two.txt", "three.txt"):
        artifact_dir.write(name, name)
    files = [{"name": name, "size": 7, "sha256": "0"} for name in ("one.txt", "three.txt", "two.txt")]
    identity = {"stage": "shard", "fingerprint": "a" * 64, "inputs": {}, "counts": {"samples": 9}, "files": files}
    artifact = artifact_dir.seal(identity, {})
    assert artifact.path("one.txt").read_text() == "one.txt"  # a copy on this machine, which must go too
    removal = Removal(samples=2, rewritten=["one.txt"], deleted=["two.txt"])
    removal.counts["samples"] = -2
    with staging(ArtifactDir(artifact.url)) as folder:
        (folder / "one.txt").write_text("new")
        replace_files(artifact, removal, folder)
    (found,) = Lineage(store).of_stage("shard")
    assert found.names() == ["one.txt", "three.txt"]
    assert (found.counts, found.manifest["forgotten"]) == ({"samples": 7}, 2)
    assert found.open("one.txt").read() == b"new"
    assert found.path("one.txt").read_text() == "new"
    assert artifact_dir.read("two.txt") is None
    assert not artifact_dir._fs.exists(f"{artifact_dir._root}/{STAGING}")
    assert not complete(artifact_dir)
