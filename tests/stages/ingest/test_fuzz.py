"""Hundreds of mutated lists, folders and shards: no crash, and nothing is lost without a reason.

What a list holds is either a pair, a repeat, a reject with its reason, or what comes after the place at which a
recorded bad file breaks off; a source that is refused says so in one line.
"""

from __future__ import annotations

import csv
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.base.contract import UserError
from stages.shard.check import check, check_shard
from stages.shard.reader import ShardReader

_ROWS = [(f"http://x.test/{n}.jpg", f'caption {n}, "quoted" Käfer 貓') for n in range(40)]
_SEEDS = range(40)


def _csv(delimiter: str) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([("url", "caption"), *_ROWS])
    return out.getvalue().encode()


def _jsonl() -> bytes:
    return "".join(json.dumps({"url": url, "caption": [caption, "b"]}) + "\n" for url, caption in _ROWS).encode()


def _parquet() -> bytes:
    out = io.BytesIO()
    url, caption = zip(*_ROWS, strict=True)
    pq.write_table(pa.table({"url": url, "caption": caption}), out, row_group_size=8)
    return out.getvalue()


LISTS: dict[str, Callable[[], bytes]] = {
    "l.csv": lambda: _csv(","),
    "l.tsv": lambda: _csv("\t"),
    "semicolons.csv": lambda: _csv(";"),
    "l.jsonl": _jsonl,
    "l.parquet": _parquet,
    "utf16.csv": lambda: _csv(",").decode().encode("utf-16"),
    "returns.csv": lambda: _csv(",").replace(b"\r\n", b"\r"),
}


def _mutated(content: bytes, draw: random.Random) -> bytes:
    """A few of: bytes changed, a run cut out, repeated, overwritten by zeros or by marks, cut off, two ends swapped."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        if len(data) < 8:
            break
        at = draw.randrange(len(data))
        run = min(draw.choice([1, 1, 2, 7, 60, 500]), len(data) - at)
        match draw.randrange(7):
            case 0:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                del data[at : at + run]
            case 2:
                data[at:at] = data[at : at + run]
            case 3:
                data[at : at + run] = bytes(run)
            case 4:
                data[at:at] = draw.choice(
                    [b'"', b"\r", b"\n", b"\t", b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"[[[", b",,"]
                )
            case 5:
                del data[at:]
            case 6:
                data = data[at:] + data[:at]
    return bytes(data)


def _accounted(artifact: Any) -> None:
    """Every row of every list is a pair, a repeat or a reject, and files that break off are recorded."""
    counts = artifact.counts
    reasons = [row["reason"] for row in pq.read_table(artifact.path("rejects.parquet")).to_pylist()]
    assert counts["rows"] == counts["pairs"] + counts.get("repeats", 0) + counts["rejects"]
    assert len(reasons) == counts["rejects"]
    assert all(reason and reason.replace("_", "").isalnum() for reason in reasons)
    bad = pq.read_table(artifact.path("bad_files.parquet")).to_pylist()
    assert len(bad) == counts["bad_files"]
    assert all(row["reason"] for row in bad)
    stored = [row for name in artifact.names("pairs-*") for row in pq.read_table(artifact.path(name)).to_pylist()]
    assert len(stored) == counts["pairs"]
    assert all(row["caption"].strip() and (row["url"] or row["path"]) for row in stored)
    # Nothing to read, and nothing said of it, is a loss.
    assert counts["rows"] or bad or counts["files"]


def _one_line(refusal: UserError) -> None:
    assert str(refusal).startswith("sources.test")
    assert "\n" not in str(refusal)


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTS)
def test_no_mutated_list_is_lost_without_a_reason(ingest: Any, tmp_path: Path, name: str) -> None:
    content = LISTS[name]()
    refused = 0
    for seed in _SEEDS:
        path = tmp_path / f"{seed}-{name}"
        path.write_bytes(_mutated(content, random.Random(f"{name} {seed}")))
        fields = {"kind": "table", "paths": [str(path)], "captions": "each"}
        try:
            _accounted(ingest(fields, bytes_per_partition=700, rows_per_partition=8))
        except UserError as refusal:
            refused += 1
            _one_line(refusal)
    assert refused < len(_SEEDS)  # most mutations cost some rows


def _photo() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(out, "PNG")
    return out.getvalue()


def _folder(folder: Path, draw: random.Random) -> int:
    """Write images, what is beside them and what is not; returns how many images."""
    images = 0
    for n in range(12):
        base = folder / draw.choice(["a", "b", "__MACOSX", "c.d"]) / draw.choice([f"{n}", f"{n}.x", f"._{n}", f"ä {n}"])
        base.parent.mkdir(parents=True, exist_ok=True)
        parts = {
            "png": _photo(),
            "txt": draw.choice(["a caption", "ein Käfer".encode("utf-16"), b"\xff", b"", b"x" * 70_000]),
            "json": draw.choice([b'{"caption": "c"}', b"{", b"[]", b'{"caption": ["a"]}', b"\0" * 9]),
        }
        for ending, data in parts.items():
            if draw.random() < 0.7:
                raw = data.encode() if isinstance(data, str) else data
                Path(f"{base}.{ending}").write_bytes(_mutated(raw, draw) if draw.random() < 0.3 else raw)
                system = base.name.startswith("._") or base.parent.name == "__MACOSX"
                images += ending == "png" and not system
    return images


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("captions", ["file", "lines", "none"])
def test_no_image_of_a_folder_is_lost_without_a_reason(
    ingest: Any, tmp_path: Path, captions: str, packed: bool
) -> None:
    """Also of a folder that was packed as a zip, as a Mac does it, and unpacked again."""
    for seed in range(12):
        draw = random.Random(f"folder {captions} {packed} {seed}")
        folder = tmp_path / str(seed)
        number = _folder(folder, draw)
        if packed:
            archive = tmp_path / f"{seed}.zip"
            with zipfile.ZipFile(archive, "w") as written:
                for file in sorted(folder.rglob("*")):
                    written.write(file, file.relative_to(folder))
                written.writestr("__MACOSX/._added.png", b"\0\5\x16\7")
            folder = tmp_path / f"{seed} unpacked"
            with zipfile.ZipFile(archive) as read:
                read.extractall(folder)
        try:
            artifact = ingest({"kind": "folder", "paths": [str(folder)], "captions": captions}, files_per_partition=5)
        except UserError as refusal:
            _one_line(refusal)
            continue
        counts = artifact.counts
        rejected = pq.read_table(artifact.path("rejects.parquet"))["file"].to_pylist()
        stored = {
            row["path"] for name in artifact.names("pairs-*") for row in pq.read_table(artifact.path(name)).to_pylist()
        }
        assert len(stored | {file for file in rejected if file.endswith(".png")}) == number
        assert counts["rows"] == counts["pairs"] + counts.get("repeats", 0) + counts["rejects"]


@pytest.mark.slow
def test_every_sample_of_a_mutated_tar_is_read_or_its_fault_is_named(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for n in range(10):
            for name, data in ((f"._{n}.png", b"\0\5\x16\7"), (f"{n}.png", _photo()), (f"{n}.txt", b"words")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    for seed in range(120):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "00000.tar").write_bytes(_mutated(whole.getvalue(), random.Random(f"tar {seed}")))
        reader = ShardReader(folder)
        report = check(reader, lambda numbers, by, r=reader: (check_shard(r, number, by) for number in numbers))
        if report.problems:
            continue
        samples = [sample.uid for sample in ShardReader(folder).iterate(0)]
        assert (len(samples), report.samples) == (10, 10)
