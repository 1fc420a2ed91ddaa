"""Malformed lists: every fault in every format costs its own row, with its own reason, and nothing else."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.base.contract import UserError

GOOD = ("a red kite", "http://x.test/1.jpg")

#: name -> (caption, url, reason); None means missing, bytes are not UTF-8.
FAULTS: dict[str, tuple[Any, Any, str]] = {
    "empty caption": ("", "http://x.test/2.jpg", "no_caption"),
    "missing caption": (None, "http://x.test/2.jpg", "no_caption"),
    "blank caption": (" \u2003", "http://x.test/2.jpg", "no_caption"),
    "NUL in caption": ("a\0b", "http://x.test/2.jpg", "nul_in_caption"),
    "giant caption": ("x" * 70_000, "http://x.test/2.jpg", "caption_too_long"),
    "giant caption of wide characters": ("\u732b" * 30_000, "http://x.test/2.jpg", "caption_too_long"),
    "caption in latin-1": (b"caf\xe9", "http://x.test/2.jpg", "not_utf8"),
    "url in latin-1": ("a cat", b"http://x.test/caf\xe9.jpg", "not_utf8"),
    "missing url": ("a cat", None, "no_url"),
    "blank url": ("a cat", "  ", "no_url"),
    "NUL in url": ("a cat", "http://x.test/\0.jpg", "nul_in_url"),
    "control character in url": ("a cat", "http://x.test/\x01.jpg", "bad_url"),
    "giant url": ("a cat", "http://x.test/" + "a" * 9_000, "url_too_long"),
    "data url": ("a cat", "data:image/png;base64," + "A" * 9_000, "data_url"),
    "upper-case data url": ("a cat", "DATA:,x", "data_url"),
    "file url": ("a cat", "file:///etc/passwd", "file_url"),
    "drive of Windows": ("a cat", "C:\\photos\\1.jpg", "file_url"),
    "script": ("a cat", "javascript:alert(1)", "script_url"),
    "ftp": ("a cat", "ftp://x.test/1.jpg", "other_scheme"),
    "object store": ("a cat", "s3://bucket/1.jpg", "other_scheme"),
    "mail": ("a cat", "mailto:a@x.test", "other_scheme"),
    "blob": ("a cat", "blob:http://x.test/1", "other_scheme"),
    "path": ("a cat", "/photos/1.jpg", "relative_url"),
    "no scheme": ("a cat", "//x.test/1.jpg", "relative_url"),
    "no scheme but a port": ("a cat", "www.x.test:80/1.jpg", "relative_url"),
    "words": ("a cat", "not an address", "relative_url"),
    "no host": ("a cat", "http:///1.jpg", "bad_url"),
    "half a host": ("a cat", "http://[::1/1.jpg", "bad_url"),
    "space in host": ("a cat", "http://x test/1.jpg", "bad_url"),
    "port of letters": ("a cat", "http://x.test:port/1.jpg", "bad_url"),
    "port too high": ("a cat", "http://x.test:99999/1.jpg", "bad_url"),
}


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else (value or "").encode()


def _text(value: Any) -> Any:
    """For JSON, which cannot hold bad bytes but half a surrogate pair."""
    return value.decode("latin-1") + "\ud83d" if isinstance(value, bytes) else value


def _parquet(rows: list[tuple[Any, Any]], url: str, caption: str) -> bytes:
    def column(values: Any) -> pa.Array:
        raw = [None if value is None else _bytes(value) for value in values]
        return pa.Array.from_buffers(pa.string(), len(raw), pa.array(raw, pa.binary()).buffers())

    out = io.BytesIO()
    captions, urls = zip(*rows, strict=True)
    pq.write_table(pa.table({url: column(urls), caption: column(captions), "WIDTH": [1] * len(rows)}), out)
    return out.getvalue()


def _csv(rows: list[tuple[Any, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["url", "caption", "n"])
    writer.writerows([_text(url) or "", _text(caption) or "", "1"] for caption, url in rows)
    return out.getvalue().replace("\ud83d", "\udce9").encode("utf-8", "surrogateescape")


def _coco(rows: list[tuple[Any, Any]]) -> bytes:
    images = [{"id": n, "coco_url": _text(url)} for n, (_, url) in enumerate(rows)]
    annotations = [{"id": n, "image_id": n, "caption": _text(caption)} for n, (caption, _) in enumerate(rows)]
    return json.dumps({"images": images, "annotations": annotations}).encode()


def _karpathy(rows: list[tuple[Any, Any]]) -> bytes:
    images = [
        {"filename": "1.jpg", "split": "train", "url": _text(url or ""), "sentences": [{"raw": _text(caption)}]}
        for caption, url in rows
    ]
    return json.dumps({"images": images}).encode()


def _jsonl(rows: list[tuple[Any, Any]]) -> bytes:
    return b"".join(json.dumps({"url": _text(u), "caption": _text(c)}).encode() + b"\n" for c, u in rows)


FORMATS: dict[str, tuple[str, str, Callable[[list[tuple[Any, Any]]], bytes]]] = {
    "laion": ("laion", "l.parquet", lambda rows: _parquet(rows, "URL", "TEXT")),
    "datacomp": ("datacomp", "d.parquet", lambda rows: _parquet(rows, "url", "text")),
    "cc3m": ("cc3m", "l.tsv", lambda rows: b"".join(_bytes(c) + b"\t" + _bytes(u) + b"\n" for c, u in rows)),
    "cc12m": ("cc12m", "l.tsv", lambda rows: b"".join(_bytes(u) + b"\t" + _bytes(c) + b"\n" for c, u in rows)),
    "coco": ("coco", "c.json", _coco),
    "karpathy": ("karpathy", "k.json", _karpathy),
    "csv": ("table", "t.csv", _csv),
    "tsv": ("table", "t.tsv", lambda rows: b"caption\turl\n" + FORMATS["cc3m"][2](rows)),
    "jsonl": ("table", "t.jsonl", _jsonl),
}


@pytest.mark.parametrize("format", FORMATS)
def test_every_bad_row_has_its_reason_in_every_format_and_the_good_rows_between_come_through(
    ingest: Any, pairs: Any, rejects: Any, tmp_path: Path, format: str
) -> None:
    kind, name, write = FORMATS[format]
    rows: list[tuple[Any, Any]] = []
    for number, (caption, url, _) in enumerate(FAULTS.values()):
        rows += [(caption, url), (f"good {number}", f"https://y.test:8080/{number}?b=c#d")]
    (tmp_path / name).write_bytes(write(rows))
    artifact = ingest({"kind": kind, "paths": [str(tmp_path / name)]}, bytes_per_partition=40_000)
    found = {list(FAULTS)[row // 2]: reason for _, row, reason in rejects(artifact)}
    assert found == {fault: reason for fault, (_, _, reason) in FAULTS.items()}
    assert {row["caption"] for row in pairs(artifact)} == {f"good {number}" for number in range(len(FAULTS))}


_TSV = b"a red kite\thttp://x.test/1.jpg\n"
_HEAD = b"url,caption\n"
_ROW = b"http://x.test/1.jpg,a red kite\n"
_LINE = b'{"url": "http://x.test/1.jpg", "caption": "a red kite"}\n'


def _coco_with(*annotations: Any, image: dict[str, Any] | None = None) -> bytes:
    images = [{"id": 1, "coco_url": "http://x.test/1.jpg", **(image or {})}, {"id": [2]}, "three", None]
    listed = [{"id": 1, "image_id": 1, "caption": "a red kite"}, *annotations]
    return json.dumps({"images": images, "annotations": listed, "licenses": [7, {"id": None}]}).encode()


def _karpathy_with(*images: Any) -> bytes:
    good = {"filename": "1.jpg", "url": "http://x.test/1.jpg", "split": "train", "sentences": [{"raw": "a red kite"}]}
    return json.dumps({"images": [good, *images]}).encode()


#: name -> (kind, file, contents, reasons by row)
ROWS: dict[str, tuple[str, str, bytes, list[tuple[int, str]]]] = {
    "tsv: no tab": ("cc3m", "l.tsv", _TSV + b"no tab\n", [(1, "not_two_columns")]),
    "tsv: two tabs": ("cc3m", "l.tsv", _TSV + b"a\tb\tc\n", [(1, "not_two_columns")]),
    "tsv: blank line": ("cc3m", "l.tsv", b"\n" + _TSV, [(0, "not_two_columns")]),
    "tsv: only carriage returns": ("cc3m", "l.tsv", _TSV + b"a\tb\rc\td\r", [(1, "not_two_columns")]),
    "tsv: byte-order mark": ("cc3m", "l.tsv", b"\xef\xbb\xbf" + _TSV, []),
    "tsv: carriage return and line feed": ("cc3m", "l.tsv", _TSV.replace(b"\n", b"\r\n"), []),
    "tsv: no end of line": ("cc3m", "l.tsv", _TSV.rstrip(), []),
    "tsv: NUL bytes": ("cc3m", "l.tsv", _TSV + b"\0\0\0\0\n", [(1, "not_two_columns")]),
    "tsv: utf-16": ("cc3m", "l.tsv", _TSV + "a\tb".encode("utf-16") + b"\n", [(1, "not_utf8")]),
    "csv: too few fields": ("table", "t.csv", _HEAD + _ROW + b"one\n", [(1, "ragged_row")]),
    "csv: too many fields": ("table", "t.csv", _HEAD + b"a,b,c\n" + _ROW, [(0, "ragged_row")]),
    "csv: blank lines": ("table", "t.csv", _HEAD + b"\n" + _ROW + b"\n", [(0, "blank_line"), (2, "blank_line")]),
    "csv: byte-order mark": ("table", "t.csv", b"\xef\xbb\xbf" + _HEAD + _ROW, []),
    "csv: forgotten quote": ("table", "t.csv", _HEAD + b'http://x.test/2.jpg,"abc\n' + _ROW, [(0, "bad_quoting")]),
    "csv: text after quote": ("table", "t.csv", _HEAD + b'"a"b,c\n' + _ROW, [(0, "bad_quoting")]),
    "csv: quote, then bad bytes": (
        "table",
        "t.csv",
        _HEAD + b'"\xff,b\n' + _ROW,
        [(0, "not_utf8")],
    ),
    "csv: quote over a bad line": (
        "table",
        "t.csv",
        _HEAD + b'"a\n\xff,b\n' + _ROW,
        [(0, "not_utf8"), (1, "not_utf8")],
    ),
    "csv: carriage return in a quoted row": ("table", "t.csv", _HEAD + b'a\rb,"c"\n' + _ROW, [(0, "bad_quoting")]),
    "csv: bad bytes": ("table", "t.csv", _HEAD + b"\xff\xfe\n" + _ROW, [(0, "not_utf8")]),
    "csv: an inch sign is no quoting": ("table", "t.csv", _HEAD + b'http://x.test/1.jpg,6" pipe\n', []),
    "tsv with header: too few": ("table", "t.tsv", b"url\tcaption\nx\nhttp://x.test/1\ta\n", [(0, "ragged_row")]),
    "tsv with header: quotes": ("table", "t.tsv", b'url\tcaption\nhttp://x.test/1.jpg\t"a red kite\n', []),
    "jsonl: not JSON": ("table", "t.jsonl", b"{oh\n" + _LINE, [(0, "not_json")]),
    "jsonl: cut short": ("table", "t.jsonl", _LINE + _LINE[:20], [(1, "not_json")]),
    "jsonl: a list": ("table", "t.jsonl", _LINE + b"[1]\n", [(1, "not_an_object")]),
    "jsonl: null": ("table", "t.jsonl", _LINE + b"null\n", [(1, "not_an_object")]),
    "jsonl: blank line": ("table", "t.jsonl", _LINE + b" \n", [(1, "blank_line")]),
    "jsonl: bad bytes": ("table", "t.jsonl", b'{"a": "\xff"}\n' + _LINE, [(0, "not_utf8")]),
    "jsonl: a nest of 100,000": ("table", "t.jsonl", _LINE + b"[" * 100_000 + b"\n", [(1, "not_json")]),
    "jsonl: a number of 5,000 digits": (
        "table",
        "t.jsonl",
        _LINE + b'{"a": ' + b"9" * 5_000 + b"}\n",
        [(1, "not_json")],
    ),
    "jsonl: caption is a number": ("table", "t.jsonl", _LINE + b'{"url": "u", "caption": 5}\n', [(1, "not_text")]),
    "jsonl: url is a list": ("table", "t.jsonl", _LINE + b'{"url": [], "caption": "a"}\n', [(1, "not_text")]),
    "jsonl: caption is true": ("table", "t.jsonl", _LINE + b'{"url": "u", "caption": true}\n', [(1, "not_text")]),
    "jsonl: other keys": ("table", "t.jsonl", _LINE + b'{"link": "u", "title": "a"}\n', [(1, "no_caption")]),
    "jsonl: not a number": ("table", "t.jsonl", _LINE.replace(b"}", b', "s": NaN, "t": -Infinity}'), []),
    "jsonl: half a surrogate in meta": ("table", "t.jsonl", _LINE.replace(b"}", b', "s": "\\ud83d"}'), []),
    "coco: a caption of nobody": (
        "coco",
        "c.json",
        _coco_with({"image_id": 9, "caption": "a"}),
        [(1, "no_such_image")],
    ),
    "coco: image id is a list": (
        "coco",
        "c.json",
        _coco_with({"image_id": [2], "caption": "a"}),
        [(1, "no_such_image")],
    ),
    "coco: image id is an object": (
        "coco",
        "c.json",
        _coco_with({"image_id": {}, "caption": "a"}),
        [(1, "no_such_image")],
    ),
    "coco: annotation is text": ("coco", "c.json", _coco_with("text"), [(1, "not_an_object")]),
    "coco: annotation is null": ("coco", "c.json", _coco_with(None), [(1, "not_an_object")]),
    "coco: caption is a list": ("coco", "c.json", _coco_with({"image_id": 1, "caption": ["a"]}), [(1, "not_text")]),
    "coco: url is a number": ("coco", "c.json", _coco_with(image={"coco_url": 5}), [(0, "not_text")]),
    "coco: license is a list": ("coco", "c.json", _coco_with(image={"license": [1]}), []),
    "karpathy: image is a number": ("karpathy", "k.json", _karpathy_with(5), [(1, "not_an_object")]),
    "karpathy: other split": (
        "karpathy",
        "k.json",
        _karpathy_with({"split": "test", "sentences": [{}]}),
        [(1, "other_split")],
    ),
    "karpathy: split is a list": ("karpathy", "k.json", _karpathy_with({"split": ["train"]}), [(1, "other_split")]),
    "karpathy: no sentences": ("karpathy", "k.json", _karpathy_with({"split": "train"}), [(1, "no_caption")]),
    "karpathy: sentence is text": (
        "karpathy",
        "k.json",
        _karpathy_with({"split": "train", "sentences": ["a"]}),
        [(1, "no_caption")],
    ),
    "karpathy: raw is a number": (
        "karpathy",
        "k.json",
        _karpathy_with({"split": "train", "sentences": [{"raw": 5}]}),
        [(1, "not_text")],
    ),
    "karpathy: file name leads out": (
        "karpathy",
        "k.json",
        _karpathy_with({"split": "train", "filename": "../1.jpg", "sentences": [{"raw": "a"}]}),
        [(1, "bad_path")],
    ),
    "karpathy: no address at all": (
        "karpathy",
        "k.json",
        _karpathy_with({"split": "train", "filename": "1.jpg", "sentences": [{"raw": "a"}]}),
        [(1, "no_url")],
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_row_that_is_malformed_in_the_way_of_its_format_has_its_reason(
    ingest: Any, pairs: Any, rejects: Any, tmp_path: Path, case: str
) -> None:
    kind, name, contents, reasons = ROWS[case]
    (tmp_path / name).write_bytes(contents)
    (tmp_path / f"good-{name}").write_bytes(FORMATS[{"table": Path(name).suffix[1:]}.get(kind, kind)][2]([GOOD]))
    artifact = ingest({"kind": kind, "paths": [str(tmp_path / name), str(tmp_path / f"good-{name}")]})
    assert rejects(artifact) == [(name, row, reason) for row, reason in reasons]
    assert "http://x.test/1.jpg" in {row["url"] for row in pairs(artifact)}
    for row in pairs(artifact):
        json.loads(row["meta"]).__str__().encode()  # what is kept can be written


_PARQUET = _parquet([GOOD, ("a", "http://x.test/2.jpg")], "URL", "TEXT")


def _table(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


#: name -> (kind, file, contents, reason, may rows before the damage have been read)
FILES: dict[str, tuple[str, str, bytes, str]] = {
    "parquet: empty": ("laion", "l.parquet", b"", "damaged"),
    "parquet: text": ("laion", "l.parquet", b"URL,TEXT\n" * 10, "damaged"),
    "parquet: footer cut off": ("laion", "l.parquet", _PARQUET[:-20], "damaged"),
    "parquet: only its beginning": ("laion", "l.parquet", _PARQUET[:8], "damaged"),
    "parquet: beginning cut off": ("laion", "l.parquet", _PARQUET[len(_PARQUET) // 2 :], "damaged"),
    "parquet: wrong footer length": ("laion", "l.parquet", _PARQUET[:-8] + b"\xff\xff\xff\x7fPAR1", "damaged"),
    "parquet: footer of zeros": ("laion", "l.parquet", _PARQUET[:-100] + b"\0" * 92 + _PARQUET[-8:], "damaged"),
    "parquet: first page overwritten": ("laion", "l.parquet", b"PAR1" + b"\xff" * 60 + _PARQUET[64:], "damaged"),
    "parquet: no url": ("laion", "l.parquet", _table(TEXT=["a"], link=["b"]), "no_column"),
    "parquet: no caption": ("datacomp", "l.parquet", _table(url=["a"], uid=["b"]), "no_column"),
    "parquet: no columns": ("laion", "l.parquet", _table(), "no_column"),
    "parquet: urls are numbers": ("laion", "l.parquet", _table(URL=[1], TEXT=["a"]), "column_not_text"),
    "parquet: captions are lists": ("laion", "l.parquet", _table(URL=["u"], TEXT=[["a"]]), "column_not_text"),
    "parquet: captions are objects": ("laion", "l.parquet", _table(URL=["u"], TEXT=[{"a": 1}]), "column_not_text"),
    "gzip: cut short": ("cc3m", "l.tsv.gz", gzip.compress(_TSV * 5_000)[:-30], "damaged"),
    "gzip: is none": ("cc3m", "l.tsv.gz", _TSV, "damaged"),
    "gzip: damaged inside": ("cc3m", "l.tsv.gz", gzip.compress(_TSV)[:12] + b"\xff" * 20, "damaged"),
    "bz2: is none": ("cc3m", "l.tsv.bz2", _TSV, "damaged"),
    "xz: is none": ("cc3m", "l.tsv.xz", _TSV, "damaged"),
    "zst: is none": ("cc3m", "l.tsv.zst", _TSV, "damaged"),
    "csv: empty": ("table", "t.csv", b"", "no_header"),
    "csv: utf-16 without its mark": ("table", "t.csv", "url,caption\na,b\n".encode("utf-16-be"), "wrong_encoding"),
    "csv: header not closed": ("table", "t.csv", b'"url,caption\n' * 3, "no_header"),
    "csv: other columns": ("table", "t.csv", b"link,title\na,b\n", "no_column"),
    "unknown ending": ("table", "t.xlsx", b"PK", "unknown_format"),
    "coco: empty": ("coco", "c.json", b"", "not_json"),
    "coco: cut short": ("coco", "c.json", _coco_with()[:-9], "not_json"),
    "coco: bad bytes": ("coco", "c.json", b'{"images": ["\xff"], "annotations": []}', "not_json"),
    "coco: a nest": ("coco", "c.json", b"[" * 100_000, "not_json"),
    "coco: a list": ("coco", "c.json", b"[]", "wrong_structure"),
    "coco: images are no list": ("coco", "c.json", b'{"images": {}, "annotations": []}', "wrong_structure"),
    "coco: karpathy's": ("coco", "c.json", _karpathy_with(), "wrong_structure"),
    "karpathy: a number": ("karpathy", "k.json", b"5", "wrong_structure"),
    "karpathy: not JSON": ("karpathy", "k.json", b"images", "not_json"),
}


@pytest.fixture
def bad_files() -> Callable[[Any], list[tuple[str, str]]]:
    """(file, reason) of an artifact's bad files."""

    def read(artifact: Any) -> list[tuple[str, str]]:
        rows = pq.read_table(artifact.path("bad_files.parquet")).to_pylist()
        return [(row["file"], row["reason"]) for row in rows]

    return read


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_recorded_with_its_reason_and_its_neighbours_come_through(
    ingest: Any, pairs: Any, bad_files: Any, tmp_path: Path, case: str
) -> None:
    kind, name, contents, reason = FILES[case]
    good = {"table": "csv"}.get(kind, kind)
    ending = FORMATS[good][1].rsplit(".", 1)[1]
    for n in range(2):
        caption = f"neighbour {n}"
        (tmp_path / f"{n}.{ending}").write_bytes(FORMATS[good][2]([(caption, "http://x.test/n.jpg")]))
    (tmp_path / name).write_bytes(contents)
    artifact = ingest({"kind": kind, "paths": [str(tmp_path)]})
    assert bad_files(artifact) == [(name, reason)]
    assert {"neighbour 0", "neighbour 1"} <= {row["caption"] for row in pairs(artifact)}
    assert artifact.counts["bad_files"] == 1
    with pytest.raises(UserError, match=f"sources.test: 1 of 1 files cannot be read.*{name}"):
        ingest({"kind": kind, "paths": [str(tmp_path / name)]})


def test_any_byte_of_a_parquet_list_may_be_wrong_and_nothing_crashes(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    (tmp_path / "0.parquet").write_bytes(_parquet([("neighbour", "http://x.test/n.jpg")], "URL", "TEXT"))
    for position in range(0, len(_PARQUET), 37):
        damaged = bytearray(_PARQUET)
        damaged[position] ^= 0x55
        (tmp_path / f"{position + 1}.parquet").write_bytes(damaged)
    artifact = ingest({"kind": "laion", "paths": [str(tmp_path)]}, max_bad_files=1.0)
    assert "neighbour" in {row["caption"] for row in pairs(artifact)}
    counts = artifact.counts
    assert counts["rows"] == counts["pairs"] + counts["repeats"] + counts["rejects"]
