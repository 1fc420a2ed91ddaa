"""`pairmill why` tells one sample's whole history, and of a private one only uids and numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.provenance.find import rows
from pipelines.provenance.provenance import ProvenanceReader, SourceArtifacts
from pipelines.provenance.reasons import explain
from stages.base.artifact import Artifact
from stages.shard.reader import ShardReader
from stages.tokens.reader import TokenReader

SELECTION = {
    "rules": {
        "min_side": 200,
        "max_nsfw": 0.5,
        "languages": ["en", "de"],
        "min_similarity": {"en": 0.28, "other": 0.26},
        "where": {"sharpness": {"min": 10.0, "max": None, "among": None, "missing": None}},
        "fractions": {"clip_similarity": {"top": 0.3, "bottom": None, "within": "source"}},
    }
}


@pytest.mark.parametrize(
    ("reason", "signals", "words"),
    [
        ("rule.min_side", {"width": 120, "height": 500}, "shorter side 120 < 200"),
        ("rule.max_nsfw", {"nsfw": 0.75}, "NSFW score 0.75 > 0.5"),
        ("rule.max_nsfw", {}, "NSFW score was not measured, and `rules.missing` is drop"),
        ("rule.language", {"language": "fr"}, "language fr is not among en, de"),
        ("rule.min_similarity", {"similarity": 0.27, "language": "en"}, "CLIP similarity of the list 0.27 < 0.28"),
        ("rule.min_similarity", {"similarity": 0.2, "language": "fr"}, "CLIP similarity of the list 0.2 < 0.26"),
        ("rule.sharpness", {"sharpness": 3.5}, "sharpness 3.5 is outside the bounds of `rules.where`: min 10.0"),
        (
            "rule.top_clip_similarity",
            {"clip_similarity": 0.1},
            "CLIP similarity 0.1 is not in the top 0.3 of its source",
        ),
        ("rule.undecodable", {}, "the image does not decode"),
        ("mixture", {}, "its source already filled its share of `selection.mixture`"),
        ("benchmark.vqa", {}, "its image is in the benchmark vqa (a.png)"),
        ("duplicate.exact", {}, "the same pixels as image a.png, which is kept"),
    ],
)
def test_reasons_name_the_value_and_the_bound(reason: str, signals: dict[str, Any], words: str) -> None:
    assert explain(reason, "a.png", signals, {}, SELECTION) == words


def why(mill: Any, sample: str) -> dict[str, Any]:
    done = mill.command("why", sample, "--json")
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def test_a_kept_pair_from_its_row_to_its_models(mill: Any) -> None:
    verdicts = mill.verdicts()
    row = next(r for r in mill.pairs("demo_coco") if verdicts[r["uid"]]["keep"])
    mill.train("pretrain[toy]", "a" * 64, {"shards": [mill.of("shard").fingerprint]}, key="k1")
    (history,) = why(mill, row["uid"])["found"]
    (pair,) = history["pairs"]
    assert (history["source"], history["image_uid"]) == ("demo_coco", row["image_uid"])
    assert (pair["listed"]["caption"], pair["listed"]["url"]) == (row["caption"], row["url"])
    (attempt,) = history["attempts"]
    assert (attempt["retry_pass"], attempt["status"]) == (0, "success")
    assert history["signals"]["width"] == attempt["width"]
    assert pair["signals"]["words"] == len(row["caption"].split())
    assert (pair["verdict"]["keep"], pair["verdict"]["words"]) == (True, "kept")
    (artifact_dir,) = pair["shards"]
    reader, tokens = ShardReader(mill.of("shard")), TokenReader(mill.of("tokens"))
    assert reader.sample(artifact_dir["sample"]).uid == row["uid"]
    shard = reader.shards.index(artifact_dir["shard"])
    assert artifact_dir["tokens"][0]["tokens"] == len(tokens.tokens(shard, artifact_dir["position"]))
    with open(mill.of("shard").path(artifact_dir["shard"]), "rb") as tar:
        tar.seek(artifact_dir["image_offset"])
        assert tar.read(artifact_dir["image_length"]) == reader.sample(artifact_dir["sample"]).image_bytes
    assert [(m["node"], m["key"]) for m in pair["models"]] == [("pretrain[toy]", "k1")]


def test_an_image_is_found_by_uid_url_and_content_with_all_its_pairs(made: Any) -> None:
    rows_ = made.pairs("demo_coco")
    image = max(rows_, key=lambda r: sum(o["image_uid"] == r["image_uid"] for o in rows_))
    uids = sorted(r["uid"] for r in rows_ if r["image_uid"] == image["image_uid"])
    assert len(uids) > 1
    raw = made.of("download", "demo_coco")
    digest = rows(raw, "attempts-*.parquet", "image_uid", image["image_uid"])[0]["sha256"]
    for sample in (image["image_uid"], image["url"], digest):
        (history,) = why(made, sample)["found"]
        assert [pair["uid"] for pair in history["pairs"]] == uids


def test_a_failed_download_says_why(made: Any) -> None:
    verdicts = made.verdicts()
    row = next(r for r in made.pairs("demo_cc3m") if verdicts[r["uid"]]["reason"] == "download.http_410")
    done = made.command("why", row["url"])
    assert "dropped, download.http_410: its image could not be downloaded" in done.stdout
    assert "shard" not in done.stdout


def test_nothing_but_uids_and_numbers_of_a_private_sample(made: Any) -> None:
    for row in made.pairs("demo_medical")[:4]:
        done = made.command("why", row["uid"])
        assert row["uid"] in done.stdout
        assert "private" in done.stdout
        told = done.stdout + made.command("why", row["image_uid"], "--json").stdout
        assert row["caption"] not in told
        assert row["path"] not in told
        assert "sha256" not in told
        assert "phash" not in told


def test_a_forgotten_sample_is_told_as_such(mill: Any, tmp_path: Any) -> None:
    row = mill.pairs("demo_coco")[0]
    (tmp_path / "list").write_text(row["uid"])
    assert mill.command("forget", str(tmp_path / "list")).returncode == 0
    record = why(mill, row["uid"])
    assert record["forgotten"]
    assert record["found"][0]["pairs"][0]["verdict"]["reason"] == "forgotten"
    assert row["caption"] not in json.dumps(record)


def test_an_unknown_sample_is_one_line(made: Any) -> None:
    done = made.command("why", "http://nowhere.example/x.jpg")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "pairmill: why http://nowhere.example/x.jpg: no source of this configuration lists it"
    )


def test_every_row_is_found_in_files_of_any_number(made: Any) -> None:
    artifact = made.of("ingest", "demo_coco")
    assert len(artifact.names("pairs-*.parquet")) > 2
    for row in made.pairs("demo_coco"):
        assert row in rows(artifact, "pairs-*.parquet", "image_uid", row["image_uid"])
    assert rows(artifact, "pairs-*.parquet", "image_uid", "f" * 32) == []
    assert rows(artifact, "pairs-*.parquet", "image_uid", "0" * 32) == []


def test_it_starts_neither_ray_nor_torch(made: Any) -> None:
    uid = next(iter(made.verdicts()))
    code = (
        "import sys; from pipelines.main import main\n"
        f"main({['why', uid, *made.words()]!r})\n"
        "print('LOADED', *[m for m in ('ray', 'torch', 'mlflow', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.rsplit("LOADED", 1)[1].split() == [], done.stderr


def test_a_verdict_is_looked_for_beside_the_list_first_and_then_everywhere(
    tmp_path: Any, write_verdicts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, verdicts = [], []
    for source in ("alpha", "beta"):
        folder = tmp_path / source
        folder.mkdir()
        for part in range(3):
            uids = [f"{ord(source[0])}{part}{n}".zfill(32) for n in range(2)]
            pq.write_table(pa.table({"uid": uids}), folder / f"pairs-{part:05d}.parquet")
            verdicts += [{"uid": u, "image_uid": u[::-1], "source": source, "keep": True, "reason": ""} for u in uids]
        manifest = {"fingerprint": source, "files": [{"name": f"pairs-{part:05d}.parquet"} for part in range(3)]}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        listed.append(Artifact(str(folder)))
    select = tmp_path / "select"
    select.mkdir()
    write_verdicts(select, [*verdicts, {**verdicts[0], "uid": "f" * 32}], listed)
    files = [{"name": f"verdicts-{number:05d}.parquet"} for number in range(6)]
    manifest = {"fingerprint": "s", "inputs": {"pairs": ["alpha", "beta"]}, "files": files}
    (select / "manifest.json").write_text(json.dumps(manifest))
    opened: list[str] = []

    class Counted(Artifact):
        def open(self, name: str) -> Any:
            opened.append(name)
            return super().open(name)

    def look(uid: str, *where: Any) -> tuple[Any, int]:
        reader = ProvenanceReader(None, frozenset())  # type: ignore[arg-type]
        reader.__dict__["_verdicts"] = Counted(str(select))
        opened.clear()
        held = reader._held(uid, *where)
        assert reader._held(uid) == held
        return held, sum(name.startswith("verdicts-") for name in opened)

    beta = SourceArtifacts("beta", False, listed[1], None, None)
    other = SourceArtifacts("beta", False, listed[0], None, None)
    row = verdicts[-1]
    assert look(row["uid"], beta, "pairs-00002.parquet") == (row, 1)
    assert look(row["uid"], other, "pairs-00002.parquet") == (row, 6)
    assert look(row["uid"]) == (row, 6)
    assert look(verdicts[2]["uid"]) == (verdicts[2], 2)
    assert look("f" * 32, beta, "pairs-00000.parquet")[0]["image_uid"] == verdicts[0]["image_uid"]
    assert look("e" * 32) == (None, 6)
