"""Real photographs and radiographs over HTTP, in LAION's and CC12M's form, beside all that can go wrong; and
photographs without text, as far as the tokens that training reads.

Everything is accounted for: attempts are successes and failures, each with its reason; pairs are kept ones and dropped
ones, each with its reason; and every planted fault is found by its own.
"""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.base.artifact import Artifact
from stages.base.pairs import image_uid, pair_uid
from stages.shard.check import check, check_shard
from stages.shard.reader import ShardReader
from stages.train.data.pairs import PairDataset

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parents[3]
PHOTOGRAPHS, RADIOGRAPHS = 45, 30
PICTURES = 8
SHOWN = "a photograph that others have copied without asking"
SETTINGS = (
    *("world=[]", "source=[]", "task=[]", "benchmark=[]", "held_out=[]", "tokenizer=bpe_50k"),
    *("tokenizer.vocabulary=400", "shard.max_samples=25"),
    *("selection=datacomp_basic", "selection.duplicates.exact=true"),
    "selection.duplicates.near={hash: phash, radius: 8, max_difference: 2.0, max_relative_difference: 0.07}",
    *("signals.families=[cheap]", "ingest.pairs_per_file=40", "cluster.cpus=2"),
    *("download.allow_private_hosts=[127.0.0.0/8]", "download.max_bytes=2000000", "download.per_host_rate=500"),
    *("download.timeout=1.5", "download.total_timeout=3", "download.retries=1", "download.backoff=0.1"),
)


class Lists:
    """The four lists, and what must become of each image and pair in them; those of `pictures` have no text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status: dict[str, dict[str, str]] = {"web_laion": {}, "web_cc12m": {}, "radiographs": {}, "pictures": {}}
        self.reason: dict[tuple[str, str, str], str] = {}
        self.rows: dict[str, list[tuple[str | None, str | None]]] = {name: [] for name in self.status}
        self.hashes: list[tuple[str, str]] = []

    def pair(self, source: str, url: str, caption: str, status: str = "success", reason: str | None = None) -> None:
        """List a pair; a `reason` None is not foretold (a rule may drop a real caption)."""
        self.rows[source].append((url, caption))
        self.status[source][url] = status
        if reason is not None:
            self.reason[source, url, caption] = reason

    def write(self) -> tuple[str, ...]:
        """Write all lists; returns the overrides that name them as sources."""
        for name in ("web_laion", "radiographs"):
            rows = self.rows[name]
            columns: dict[str, Sequence[Any]] = {
                "SAMPLE_ID": list(range(len(rows))),
                "URL": [url for url, _ in rows],
                "TEXT": [caption for _, caption in rows],
                "WIDTH": [640] * len(rows),
                "HEIGHT": [480] * len(rows),
                "similarity": [0.2 + (n % 20) / 100 for n in range(len(rows))],
                "punsafe": [math.nan if n % 7 == 0 else 0.01 for n in range(len(rows))],
                "pwatermark": [0.1] * len(rows),
                "LICENSE": ["?"] * len(rows),
            }
            table = pa.table(columns)
            (self.folder / name).mkdir()
            half = len(rows) // 2
            pq.write_table(table.slice(0, half), self.folder / name / "part-0.parquet")
            pq.write_table(table.slice(half), self.folder / name / "part-1.parquet")
        lines = [f"{url}\t{caption}".encode() for url, caption in self.rows["web_cc12m"]]
        lines[3:3] = [b"one column only", b"\tno address", b"http://x.test/a.jpg\t", b"http://x.test/b.jpg\t\xff\xfe"]
        lines += [b"data:image/png;base64,AAAA\tinside", b"ftp://x.test/c.jpg\tanother way", lines[0]]
        (self.folder / "cc12m.tsv").write_bytes(b"\n".join(lines) + b"\n")
        pictures = [{"url": url, "caption": "to be ignored"} for url, _ in self.rows["pictures"]]
        (self.folder / "pictures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pictures))
        (self.folder / "hashes.tsv").write_text("".join(f"{url}\t{sha256}\t\n" for url, sha256 in self.hashes))
        return (
            "++sources.web_laion.kind=laion",
            f"++sources.web_laion.paths=[{self.folder}/web_laion/*.parquet]",
            "++sources.web_cc12m.kind=cc12m",
            f"++sources.web_cc12m.paths=[{self.folder}/cc12m.tsv]",
            f"++sources.web_cc12m.hashes=[{self.folder}/hashes.tsv]",
            "++sources.radiographs.kind=laion",
            "++sources.radiographs.private=true",
            f"++sources.radiographs.paths=[{self.folder}/radiographs/*.parquet]",
            "++sources.pictures.kind=table",
            "++sources.pictures.captions=none",
            f"++sources.pictures.paths=[{self.folder}/pictures.jsonl]",
        )


#: Rows of the CC12M list that are no pairs, and one that is listed twice.
CC12M_REJECTS = {
    "not_two_columns": 1,
    "no_url": 1,
    "no_caption": 1,
    "not_utf8": 1,
    "data_url": 1,
    "other_scheme": 1,
}


def small_picture(data: bytes) -> bytes:
    """A photograph scaled down to 120 pixels in height."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").resize((150, 120)).save(out, "JPEG")
    return out.getvalue()


def caption_of(folder: Path, split: str) -> dict[str, list[str]]:
    """File name -> captions of its photograph."""
    listed = json.loads((folder / f"captions_{split}.json").read_text())
    names = {image["id"]: image["file_name"] for image in listed["images"]}
    captions: dict[str, list[str]] = {}
    for annotation in listed["annotations"]:
        captions.setdefault(names[annotation["image_id"]], []).append(" ".join(annotation["caption"].split()))
    return captions


@pytest.fixture
def lists(shared: Path, hosts: Any, plant: Callable[..., Any], tmp_path: Path) -> Lists:
    """Serves everything and lists it."""
    lists = Lists(tmp_path)
    coco, chest = shared / "data/coco", shared / "data/cxr"
    for source, split in (("web_laion", "train2017"), ("web_cc12m", "val2017")):
        captions = caption_of(coco, split)
        for number, path in enumerate(sorted((coco / split).glob("*.jpg"))[:PHOTOGRAPHS]):
            url = hosts.serve(f"127.0.0.{2 + number % 3}", f"/{split}/{path.name}", path.read_bytes())
            for caption in captions[path.name][: 2 if number % 5 == 0 else 1]:
                lists.pair(source, url, caption)
    # A quotation mark without its pair is ordinary text, and the list goes on behind it.
    first = lists.rows["web_cc12m"][1][0]
    assert first is not None
    lists.pair("web_cc12m", first, 'the sign says "open all night', reason="")

    spare: Iterator[bytes] = (path.read_bytes() for path in sorted((coco / "val2017").glob("*.jpg"))[PHOTOGRAPHS:])
    copied = next(spare)
    shown = hosts.serve("127.0.0.2", "/shown.jpg", copied)
    lists.pair("web_laion", shown, SHOWN)
    for number, fault in enumerate(plant(hosts, spare, (shown, copied))):
        source = "web_laion" if number % 2 and not fault.sha256 else "web_cc12m"
        lists.pair(source, fault.url, fault.caption, fault.status, fault.reason)
        if fault.sha256:
            lists.hashes.append((fault.url, fault.sha256))
    lists.rows["web_laion"] += [(None, "no address"), (shown, None), ("file:///etc/passwd", "a file of this machine")]

    for number, picture in enumerate(islice(spare, PICTURES)):
        url = hosts.serve("127.0.0.3", f"/pictures/{number}.jpg", picture)
        lists.pair("pictures", url, "", reason="")
    twin = hosts.serve("127.0.0.2", "/twin.jpg", picture)
    lists.pair("web_cc12m", twin, "the same photograph, which has a caption here", reason="")
    lists.reason["pictures", url, ""] = "duplicate.exact"  # for the one with a text
    missing = hosts.url("127.0.0.3", "/pictures/gone.jpg")
    lists.pair("pictures", missing, "", "http_404", "download.http_404")
    small = hosts.serve("127.0.0.3", "/pictures/small.jpg", small_picture(picture))
    lists.pair("pictures", small, "", reason="rule.min_side")
    # What two sources list is asked for once.
    lists.pair("web_cc12m", missing, "a photograph that both lists name", "http_404", "download.http_404")
    lists.pair("web_cc12m", small, "a small photograph that both lists name", reason="rule.min_side")

    reports = json.loads((chest / "meta.json").read_text())
    for number, entry in enumerate(sorted(reports, key=lambda entry: entry["file"])[:RADIOGRAPHS]):
        data = (chest / entry["file"]).read_bytes()
        url = hosts.serve("127.0.0.4", f"/chest/{number}.jpg", data)
        lists.pair("radiographs", url, " ".join(entry["report"].split()))
    gone = hosts.url("127.0.0.4", "/chest/gone.jpg")
    lists.pair("radiographs", gone, "a study that was withdrawn", "http_404", "download.http_404")
    half = hosts.serve("127.0.0.4", "/chest/half.jpg", data[: len(data) // 2])
    lists.pair("radiographs", half, "a study that was cut in two", "truncated", "download.truncated")
    return lists


def pairmill(workspace: Path, *words: str) -> str:
    command = [sys.executable, "-m", "pipelines.main", *words, f"workspace={workspace}"]
    environment = {**os.environ, "HYDRA_FULL_ERROR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=ROOT, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def artifacts(workspace: Path, stage: str) -> dict[str, Path]:
    """Instance -> folder."""
    folders = sorted((workspace / "artifacts" / stage).glob("*"))
    return {folder.name.rpartition("-")[0]: folder for folder in folders}


def counts(folder: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((folder / "manifest.json").read_text())["counts"]
    return found


def table(folder: Path, pattern: str) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob(pattern)) for row in pq.read_table(path).to_pylist()]


def check_lists(found: Mapping[str, Path], lists: Lists) -> None:
    for source, folder in found.items():
        total = counts(folder)
        assert total["rows"] == total["pairs"] + total["repeats"] + total["rejects"]
        assert total["pairs"] == len(
            [row for row in lists.rows[source] if row[0] in lists.status[source] and row[1] is not None]
        )
        assert total["images"] == len(lists.status[source])
    assert counts(found["web_cc12m"])["repeats"] == 1
    reasons = {
        source: Counter(row["reason"] for row in table(path, "rejects.parquet")) for source, path in found.items()
    }
    assert reasons["web_cc12m"] == CC12M_REJECTS
    assert reasons["web_laion"] == {"no_url": 1, "no_caption": 1, "file_url": 1}
    assert not reasons["radiographs"]
    assert not reasons["pictures"]
    assert counts(found["pictures"])["files_with_ignored_captions"] == 1


def check_attempts(found: Mapping[str, Path], lists: Lists) -> None:
    for source, folder in found.items():
        expected = {image_uid(source, url): (url, status) for url, status in lists.status[source].items()}
        rows = {row["image_uid"]: row for row in table(folder, "attempts-*.parquet")}
        assert {expected[uid][0]: row["status"] for uid, row in rows.items()} == lists.status[source]
        total = counts(folder)
        failures = {name: n for name, n in total.items() if name.startswith("status.")}
        assert total["images"] == total["success"] + sum(failures.values()) == len(rows)
        statuses = Counter(lists.status[source].values())
        assert total["success"] == statuses.pop("success")
        assert failures == {f"status.{status}": n for status, n in statuses.items()}
        if source == "radiographs":
            assert not (folder / "hosts.parquet").exists()
            assert all(row["url"] is row["error"] is row["path"] is None for row in rows.values())
            continue
        assert all(row["error"] for row in rows.values() if row["status"] != "success")
        turned = [row for row in rows.values() if (row["url"] or "").endswith("/turned.jpg")]
        assert all((row["exif_orientation"], row["width"], row["height"]) == (6, 320, 480) for row in turned)


def check_verdicts(workspace: Path, lists: Lists) -> None:
    (selected,) = (workspace / "artifacts/select").glob("*")
    verdicts = {row["uid"]: row for row in table(selected, "verdicts-*.parquet")}
    listed = {
        pair_uid(source, url, caption): (source, url, caption)
        for source, rows in lists.rows.items()
        for url, caption in rows
        if url in lists.status[source] and caption is not None
    }
    assert {uid: row["source"] for uid, row in verdicts.items()} == {uid: it[0] for uid, it in listed.items()}
    total = counts(selected)
    dropped = {name.removeprefix("dropped."): n for name, n in total.items() if name.startswith("dropped.")}
    assert total["pairs"] == len(verdicts) == total["kept"] + sum(dropped.values())
    assert dropped == Counter(row["reason"] for row in verdicts.values() if not row["keep"])
    assert all(row["keep"] == (row["reason"] == "") for row in verdicts.values())

    reasons = {listed[uid]: row["reason"] for uid, row in verdicts.items()}
    exact = [pair for pair, reason in lists.reason.items() if reason == "duplicate.exact" and pair[0] != "pictures"]
    others = {pair: reason for pair, reason in lists.reason.items() if pair not in exact}
    assert {pair: reasons[pair] for pair in others} == others
    # Of two equal files either may stay.
    both = [*exact, *(pair for pair in reasons if pair[2] == SHOWN)]
    assert sorted(reasons[pair] for pair in both) == ["", "duplicate.exact"]
    foretold = {*lists.reason, *both}
    unforeseen = {pair: reason for pair, reason in reasons.items() if pair not in foretold and reason}
    assert all(reason.startswith("rule.") for reason in unforeseen.values()), unforeseen
    assert len(unforeseen) < 0.1 * len(reasons), unforeseen


def check_images_without_text(workspace: Path, lists: Lists) -> None:
    """They are in the shards, without a text, ids or a word in the tokenizer."""
    (shards,) = (workspace / "artifacts/shard").glob("*")
    (selected,) = (workspace / "artifacts/select").glob("*")
    (tokens,) = (workspace / "artifacts/tokens").glob("*")
    (tokenizer,) = (workspace / "artifacts/tokenizer").glob("*")
    kept = {row["uid"] for row in table(selected, "verdicts-*.parquet") if row["keep"] and row["source"] == "pictures"}
    assert len(kept) == PICTURES - 1
    reader = ShardReader(str(shards))
    rows = [reader.index[number] for number in range(len(reader))]
    assert {row.uid for row in rows if row.text_length < 0} == kept
    assert reader.dataset["image_only"] == {"pictures": len(kept)}
    report = check(reader, lambda numbers, by_index: [check_shard(reader, n, by_index) for n in numbers])
    assert report.problems == []
    assert {row["source"]: row["tokens"] > 0 for row in token_figures(tokens)} == {
        source: source != "pictures" for source in lists.status
    }
    assert "pictures" not in json.loads((tokenizer / "report.json").read_text())["corpora"]
    dataset = PairDataset(Artifact(str(shards)), Artifact(str(tokens)), max_tokens=32)
    captioned = dataset.with_texts()
    assert captioned is not None
    assert len(captioned) == len(dataset) - len(kept)
    assert "image-only" in (selected / "report.html").read_text()


def token_figures(tokens: Path) -> list[dict[str, Any]]:
    sources = json.loads((tokens / "tokens.json").read_text())["sources"]
    return [{"source": source, **figures} for source, figures in sources.items()]


def check_forgetting_an_image(workspace: Path, lists: Lists, settings: Sequence[str], listed: Path) -> None:
    """One that was kept goes from every artifact; `pairmill why` tells what it was before."""
    url = next(url for source, url, _ in lists.reason if source == "pictures")
    uid = pair_uid("pictures", url, "")
    told = pairmill(workspace, "why", url, *settings)
    assert "none: its source is image-only" in told
    assert "0 tokens" in told
    listed.write_text(url + "\n")
    pairmill(workspace, "forget", str(listed), *settings)
    (shards,) = (workspace / "artifacts/shard").glob("*")
    reader = ShardReader(str(shards))
    assert uid not in {reader.index[number].uid for number in range(len(reader))}
    assert reader.dataset["image_only"] == {"pictures": PICTURES - 2}
    report = check(reader, lambda numbers, by_index: [check_shard(reader, n, by_index) for n in numbers])
    assert report.problems == []
    (tokens,) = (workspace / "artifacts/tokens").glob("*")
    samples = {row["source"]: row["samples"] for row in token_figures(tokens)}
    assert samples["pictures"] == PICTURES - 2
    assert uid not in {row["uid"] for row in table(artifacts(workspace, "ingest")["pictures"], "pairs-*.parquet")}


def test_every_image_and_pair_is_accounted_for_and_every_planted_fault_found_by_its_own_reason(
    lists: Lists, hosts: Any, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    settings = (*SETTINGS, *lists.write())

    pairmill(workspace, "run", "tokens", *settings)

    check_lists(artifacts(workspace, "ingest"), lists)
    check_attempts(artifacts(workspace, "download"), lists)
    check_verdicts(workspace, lists)
    # What can never come right is asked for once; what may pass, again.
    asked = {path: n for (_, path), n in hosts.asked.items()}
    by_status: dict[str, set[int]] = {}
    for statuses in lists.status.values():
        for url, status in statuses.items():
            by_status.setdefault(status, set()).add(asked.get("/" + url.split("/", 3)[3], 0))
    finals = ("http_404", "http_410", "truncated", "not_an_image", "unsupported_encoding")
    once = {status: by_status[status] for status in finals}
    assert once == {status: {1} for status in once}
    passing = ("http_500", "http_429", "timeout", "bad_response", "connection_reset", "incomplete_transfer")
    again = {status: by_status[status] for status in passing}
    assert again == {status: {2} for status in again}
    assert by_status["rate_limited"] <= {0, 1}
    assert by_status["robots_unavailable"] == {0}
    assert by_status["robots"] == {0, 1}  # one URL may be asked for, and redirects to one that may not
    assert not [path for path in asked if path.startswith(("/private", "/x/", "/%70"))]
    assert asked["/pictures/small.jpg"] == 1
    assert by_status["opt_out"] == {0, 1}  # reserved by the host's file, or told with the answer
    assert asked["/robots.txt"] <= 2 * 7 * 3  # once per host, source and process; twice where it failed
    check_images_without_text(workspace, lists)
    check_forgetting_an_image(workspace, lists, settings, tmp_path / "forget.txt")
