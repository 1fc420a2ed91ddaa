"""Tables of pairs: four formats, chosen and found columns, local files, digests, ranges."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base.contract import UserError
from stages.ingest.delimited import Records

SHA = "AB" * 32


def _write(folder: Path, format: str) -> str:
    rows = [
        {"image_url": "http://x.test/1.jpg", "text": "a cat, asleep", "author": "Ada", "sha256": SHA},
        {"image_url": "http://x.test/2.jpg", "text": 'the "dog"', "author": "", "sha256": "none"},
    ]
    path = folder / f"list.{format}"
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif format.startswith("jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if format.endswith("gz") else text)
    elif format == "csv":
        lines = [
            f'{r["image_url"]},"{r["text"].replace(chr(34), chr(34) * 2)}",{r["author"]},{r["sha256"]}' for r in rows
        ]
        path.write_text("image_url,text,author,sha256\n" + "\n".join(lines))
    else:
        path.write_text("\n".join(["image_url\ttext\tauthor\tsha256", *("\t".join(r.values()) for r in rows)]))
    return str(path)


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "jsonl.gz", "parquet"])
def test_every_format_gives_the_same_pairs(ingest: Any, pairs: Any, tmp_path: Path, format: str) -> None:
    rows = {row["url"][-5]: row for row in pairs(ingest({"kind": "table", "paths": [_write(tmp_path, format)]}))}
    assert rows["1"]["caption"] == "a cat, asleep"
    assert rows["2"]["caption"] == 'the "dog"'
    assert json.loads(rows["1"]["meta"]) == {"author": "Ada", "sha256": SHA.lower()}
    assert json.loads(rows["2"]["meta"]).get("sha256") is None  # what is no digest cannot be checked


def test_columns_delimiter_and_format_can_be_said(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("link;title;rights;crc\nhttp://x.test/1.jpg;a cat;cc0;" + SHA)
    fields = {
        "kind": "table",
        "paths": [str(tmp_path / "list.txt")],
        "format": "csv",
        "delimiter": ";",
        "url_column": "link",
        "caption_column": "title",
        "license_column": "rights",
        "sha256_column": "crc",
    }
    (row,) = pairs(ingest(fields))
    assert (row["url"], row["caption"], row["license"]) == ("http://x.test/1.jpg", "a cat", "cc0")
    assert json.loads(row["meta"]) == {"sha256": SHA.lower()}


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_with_images_rows_name_files_below_that_folder_and_none_leads_out(
    ingest: Any, pairs: Any, rejects: Any, tmp_path: Path, format: str
) -> None:
    listed = ["a/1.jpg", "../1.jpg", "/etc/passwd", "", "a\\2.jpg", "./3.jpg", "a//4.jpg"]
    path = tmp_path / f"list.{format}"
    if format == "csv":
        path.write_text("file_name,caption\n" + "".join(f"{name},a cat\n" for name in listed))
    else:
        path.write_text("".join(json.dumps({"file_name": name, "caption": "a cat"}) + "\n" for name in listed))
    artifact = ingest({"kind": "table", "paths": [str(path)], "images": "/photos"})
    assert {(row["path"], row["url"]) for row in pairs(artifact)} == {("a/1.jpg", None), ("a/2.jpg", None)}
    assert [reason for _, _, reason in rejects(artifact)] == ["bad_path", "bad_path", "no_path", "bad_path", "bad_path"]


@pytest.mark.parametrize("format", ["tsv", "jsonl"])
def test_ranges_give_every_row_once(ingest: Any, contents: Any, rejects: Any, tmp_path: Path, format: str) -> None:
    path = tmp_path / f"list.{format}"
    rows = [(f"http://x.test/{n}.jpg", "" if n == 33 else f"caption {n}") for n in range(60)]
    if format == "tsv":
        path.write_text("url\tcaption\n" + "".join(f"{url}\t{caption}\n" for url, caption in rows))
    else:
        path.write_text("".join(json.dumps({"url": url, "caption": caption}) + "\n" for url, caption in rows))
    whole = ingest({"kind": "table", "paths": [str(path)]})
    split = ingest({"kind": "table", "paths": [str(path)]}, bytes_per_partition=100)
    told = [{name: sha for name, sha in contents(a).items() if name != "preview.json"} for a in (whole, split)]
    assert told[0] == told[1]  # the preview looks at the first range only
    assert rejects(split) == [(f"list.{format}", 33, "no_caption")]
    assert split.counts["pairs"] == 59


FIELD = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r"), max_size=6)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(FIELD, min_size=2, max_size=3), max_size=6))
def test_records_written_with_quotes_are_read_back(rows: list[list[str]]) -> None:
    def quoted(field: str) -> str:
        return '"' + field.replace('"', '""') + '"'

    text = "".join(",".join(map(quoted, row)) + "\n" for row in rows)
    lines = iter(text.encode().split(b"\n")[:-1])
    assert list(Records(lines, ",", quoting=True)) == rows


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.binary(max_size=8).map(lambda b: b.replace(b"\n", b"")) | st.sampled_from([b'"', b',"', b'""']), max_size=9
    )
)
def test_any_lines_are_read_to_their_end_and_cost_at_most_themselves(lines: list[bytes]) -> None:
    records = list(Records(iter([*lines, b"", b"last,row"]), ",", quoting=True))
    assert len(records) <= len(lines) + 2
    assert b"".join(lines).count(b'"') % 2 or records


def test_a_forgotten_quote_costs_its_own_line_however_long_the_list() -> None:
    lines = [b'"forgotten,row'] + [b"good,row"] * 1_000
    records = list(Records(iter(lines), ",", quoting=True))
    assert records[0] == "bad_quoting"
    assert records[1:] == [["good", "row"]] * 1_000


LISTS = [
    ("http://x.test/1.jpg", ["a cat", "a cat asleep"]),
    ("http://x.test/2.jpg", []),
    ("http://x.test/3.jpg", None),
    ("http://x.test/4.jpg", ["a dog", None, " "]),
]


def _listed(folder: Path, format: str) -> str:
    path = folder / f"list.{format.removeprefix('large_')}"
    rows = [{"url": url, "caption": captions, "n": n} for n, (url, captions) in enumerate(LISTS)]
    if format.endswith("parquet"):
        kind = pa.large_list(pa.large_string()) if format.startswith("large") else pa.list_(pa.string())
        schema = pa.schema([("url", pa.string()), ("caption", kind), ("n", pa.int64())])
        pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=3)
    elif format == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        cells = ["" if captions is None else json.dumps(captions) for _, captions in LISTS]
        lines = [f"{url}\t{cell}\t{n}" for n, ((url, _), cell) in enumerate(zip(LISTS, cells, strict=True))]
        path.write_text("\n".join(["url\tcaption\tn", *lines]))
    return str(path)


@pytest.mark.parametrize("format", ["parquet", "large_parquet", "jsonl", "tsv"])
def test_each_caption_of_a_listed_image_can_be_a_pair(
    ingest: Any, pairs: Any, rejects: Any, tmp_path: Path, format: str
) -> None:
    fields = {"kind": "table", "paths": [_listed(tmp_path, format)]}
    artifact = ingest({**fields, "captions": "each"})
    assert sorted((row["url"][-5], row["caption"], json.loads(row["meta"])["n"]) for row in pairs(artifact)) == [
        ("1", "a cat", 0 if format != "tsv" else "0"),
        ("1", "a cat asleep", 0 if format != "tsv" else "0"),
        ("4", "a dog", 3 if format != "tsv" else "3"),
    ]
    assert [reason for _, _, reason in rejects(artifact)] == ["no_caption"] * 4
    assert artifact.counts["images"] == 2


@pytest.mark.parametrize(
    ("format", "said"), [("parquet", "captions=each for a pair of each"), ("jsonl", "captions=each")]
)
def test_lists_of_captions_are_refused_with_the_key_that_reads_them(
    ingest: Any, tmp_path: Path, format: str, said: str
) -> None:
    path = Path(_listed(tmp_path, format))
    if format == "jsonl":
        path.write_text(path.read_text().splitlines()[0])
    with pytest.raises(UserError, match=said):
        ingest({"kind": "table", "paths": [str(path)]})


def test_captions_that_are_texts_stay_one_each_also_where_lists_are_allowed(
    ingest: Any, pairs: Any, tmp_path: Path
) -> None:
    captions = ["a cat", "[sic] a dog", '["a", "b"]', "[1, 2]"]
    rows = [{"URL": f"http://x.test/{n}.jpg", "TEXT": caption} for n, caption in enumerate(captions)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "l.parquet")
    fields = {"kind": "laion", "paths": [str(tmp_path / "l.parquet")]}
    each = [row["caption"] for row in pairs(ingest({**fields, "captions": "each"}))]
    assert sorted(each) == ["[1, 2]", "[sic] a dog", "a", "a cat", "b"]
    assert sorted(row["caption"] for row in pairs(ingest(fields))) == sorted(captions)
