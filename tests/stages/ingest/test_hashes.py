"""CC12M's hash codes: joined by URL, wherever they stand in their list."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any


def _digests(n: int) -> tuple[str, str]:
    return f"{n:064x}", f"{n:032x}"


def _lists(folder: Path, rows: int) -> dict[str, Any]:
    (folder / "pairs").mkdir(parents=True)
    (folder / "hashes").mkdir()
    pairs = "".join(f"http://x.test/{n % 50}.jpg\tcaption {n}\n" for n in range(rows))
    hashes = "".join("\t".join((f"http://x.test/{n}.jpg", *_digests(n))) + "\n" for n in range(60, 9, -1))
    hashes += (
        "http://x.test/3.jpg\tnot hex\tnot hex either\nhttp://x.test/4.jpg\nhttp://x.test/5.jpg\t\t" + "F" * 32 + "\n"
    )
    hashes += "\t".join(("http://x.test/11.jpg", *_digests(999))) + "\n"
    (folder / "pairs/cc12m.tsv").write_text(pairs)
    (folder / "hashes/cc12m.tsv.gz").write_bytes(gzip.compress(hashes.encode()))
    return {"kind": "cc12m", "paths": [f"{folder}/pairs/cc12m.tsv"], "hashes": [f"{folder}/hashes/*.gz"]}


def test_digests_reach_the_meta_of_their_pairs(ingest: Any, pairs: Any, rejects: Any, tmp_path: Path) -> None:
    artifact = ingest(_lists(tmp_path, 100), bytes_per_partition=500)
    meta = {row["caption"]: json.loads(row["meta"]) for row in pairs(artifact)}
    assert meta["caption 20"] == meta["caption 70"] == dict(zip(("sha256", "md5"), _digests(20), strict=True))
    assert meta["caption 11"]["sha256"] == _digests(11)[0]  # listed twice: the first counts
    assert meta["caption 3"] == meta["caption 4"] == meta["caption 9"] == {}
    assert meta["caption 5"] == {"md5": "f" * 32}
    counts = artifact.counts
    assert (counts["rows"], counts["pairs"], counts["digests"], counts["bad_digests"]) == (100, 100, 53, 2)
    assert rejects(artifact) == []
    assert [f["first_file"] for f in artifact.read_json("preview.json")["schemas"]] == [
        "cc12m.tsv",
        "hashes/cc12m.tsv.gz",
    ]


def test_the_join_does_not_depend_on_how_the_work_was_cut(
    ingest: Any, contents: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    from stages.ingest import merge

    fields = _lists(tmp_path, 100)
    whole = contents(ingest(fields))
    monkeypatch.setattr(merge, "_STEP_ROWS", 7)
    monkeypatch.setattr(merge, "_FAN_IN", 3)
    assert contents(ingest(fields, bytes_per_partition=300, reverse=True)) == whole


def test_without_a_hash_file_nothing_changes(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    fields = _lists(tmp_path, 5)
    del fields["hashes"]
    artifact = ingest(fields)
    assert {row["meta"] for row in pairs(artifact)} == {"{}"}
    assert "digests" not in artifact.counts
