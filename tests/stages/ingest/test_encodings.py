"""Lists in other encodings, with other line ends and other delimiters than UTF-8, line feed and comma."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.base.contract import UserError
from stages.ingest import text_files
from stages.ingest.files import InputFile
from stages.ingest.plugins import source_config
from stages.ingest.source import Unit

ROWS = [
    ("http://x.test/1.jpg", "ein Käfer, groß"),
    ("http://x.test/2.jpg", "貓在樹上"),
    ("http://x.test/3.jpg", "🦊 fox"),
]


def _csv(delimiter: str = ",", end: str = "\n") -> str:
    quoted = [f'{url}{delimiter}"{caption}"' for url, caption in ROWS]
    return end.join([f"url{delimiter}caption", *quoted]) + end


def _captions(pairs: Any, artifact: Any) -> set[tuple[str, str]]:
    return {(row["url"], row["caption"]) for row in pairs(artifact)}


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_list_with_a_byte_order_mark_is_read_whatever_its_line_ends(
    ingest: Any, pairs: Any, tmp_path: Path, mark: str, end: str
) -> None:
    text = _csv(end=end)
    (tmp_path / "t.csv").write_bytes((("\ufeff" + text) if mark.endswith("-be") else text).encode(mark))
    artifact = ingest({"kind": "table", "paths": [str(tmp_path / "t.csv")]})
    assert _captions(pairs, artifact) == set(ROWS)
    assert artifact.counts["rejects"] == 0


@pytest.mark.parametrize("form", ["jsonl", "tsv", "cc3m", "cc12m", "jsonl.gz"])
def test_every_text_list_may_be_in_utf_16(ingest: Any, pairs: Any, tmp_path: Path, form: str) -> None:
    lines = {
        "jsonl": [json.dumps({"url": url, "text": caption}, ensure_ascii=False) for url, caption in ROWS],
        "tsv": ["url\ttext", *("\t".join(row) for row in ROWS)],
        "cc3m": ["\t".join(reversed(row)) for row in ROWS],
        "cc12m": ["\t".join(row) for row in ROWS],
    }[form.removesuffix(".gz")]
    content = "\r\n".join(lines).encode("utf-16")
    name = f"list.{form if form[:2] != 'cc' else 'tsv'}"
    (tmp_path / name).write_bytes(gzip.compress(content) if form.endswith("gz") else content)
    kind = form if form[:2] == "cc" else "table"
    # Ranges far smaller than a row: such a list is not cut.
    artifact = ingest({"kind": kind, "paths": [str(tmp_path / name)]}, bytes_per_partition=10)
    assert _captions(pairs, artifact) == set(ROWS)


def test_utf_16_without_its_mark_is_named_and_read_when_configured(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_bytes("url\tcaption\nhttp://x.test/1.jpg\ta cat\n".encode("utf-16-le"))
    fields = {"kind": "table", "paths": [str(tmp_path / "t.tsv")]}
    with pytest.raises(UserError, match=r"look like utf-16-le without .*: set encoding=utf-16-le"):
        ingest(fields)
    assert _captions(pairs, ingest({**fields, "encoding": "UTF-16LE"})) == {("http://x.test/1.jpg", "a cat")}


@pytest.mark.parametrize(
    ("encoding", "caption"), [("cp1252", "Käfer – groß"), ("gb18030", "猫在树上 äé"), ("shift_jis", "猫ソ表")]
)
@pytest.mark.parametrize("form", ["table", "cc3m"])
def test_an_encoding_can_be_configured_and_costs_no_ranges(
    ingest: Any, pairs: Any, rejects: Any, tmp_path: Path, encoding: str, caption: str, form: str
) -> None:
    rows = [f"{caption}\thttp://x.test/{n}.jpg".encode(encoding) for n in range(9)]
    header = [b"caption\turl"] if form == "table" else []
    (tmp_path / "t.tsv").write_bytes(b"\n".join([*header, *rows, b"caf\xff\xff\thttp://x.test/x.jpg"]) + b"\n")
    fields = {"kind": form, "paths": [str(tmp_path / "t.tsv")]}
    artifact = ingest({**fields, "encoding": encoding}, bytes_per_partition=50)
    assert {(row["caption"]) for row in pairs(artifact)} - {"cafÿÿ"} == {caption}
    assert sum(row["caption"] == caption for row in pairs(artifact)) == 9
    # What does not decode is one row; in cp1252 every byte is some letter.
    assert [reason for _, _, reason in rejects(artifact)] == ([] if encoding == "cp1252" else ["not_utf8"])


def test_a_list_of_other_bytes_says_which_key_names_its_encoding(ingest: Any, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_bytes("url\tcaption\nhttp://x.test/1.jpg\tKäfer\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"mostly not_utf8.*set encoding, e.g. to cp1252"):
        ingest({"kind": "table", "paths": [str(tmp_path / "t.tsv")]})


@pytest.mark.parametrize("wrong", ["utf-9", "rot13", ""])
def test_an_unknown_encoding_is_refused_at_once(wrong: str) -> None:
    with pytest.raises(ValidationError, match="is no encoding of texts"):
        source_config("s", {"kind": "table", "paths": ["t.csv"], "encoding": wrong})


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_a_csv_with_another_delimiter_is_read_where_its_header_leaves_no_doubt(
    ingest: Any, pairs: Any, tmp_path: Path, delimiter: str
) -> None:
    (tmp_path / "t.csv").write_text(_csv(delimiter))
    (tmp_path / "u.tsv").write_text(_csv(delimiter).replace('"', ""))
    assert _captions(pairs, ingest({"kind": "table", "paths": [str(tmp_path / "t.csv")]})) == set(ROWS)
    assert _captions(pairs, ingest({"kind": "table", "paths": [str(tmp_path / "u.tsv")]})) == set(ROWS)


def test_a_table_of_unusual_columns_and_delimiter_is_refused_with_its_columns(
    ingest: Any, pairs: Any, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("link;title\nhttp://x.test/1.jpg;a, b\n")
    fields = {"kind": "table", "paths": [str(tmp_path / "t.csv")]}
    with pytest.raises(UserError, match=r"it has link, title: set sources.test.url_column"):
        ingest(fields)
    named = {**fields, "url_column": "link", "caption_column": "title"}
    assert _captions(pairs, ingest(named)) == {("http://x.test/1.jpg", "a, b")}


def test_a_caption_beside_an_image_may_be_in_utf_16(ingest: Any, pairs: Any, tmp_path: Path) -> None:
    for name, content in (("a.txt", "ein Käfer".encode("utf-16")), ("b.txt", b"one\rtwo")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name.replace("txt", "jpg")).write_bytes(b"")
    found = {(row["path"], row["caption"]) for row in pairs(ingest({"kind": "folder", "paths": [str(tmp_path)]}))}
    assert found == {("a.jpg", "ein Käfer"), ("b.jpg", "one\rtwo")}
    lines = pairs(ingest({"kind": "folder", "paths": [str(tmp_path)], "captions": "lines"}))
    assert {row["caption"] for row in lines} == {"ein Käfer", "one", "two"}


@settings(deadline=None, max_examples=60)
# Without NUL: lines of little else are what UTF-16 without a byte-order mark looks like, and refused.
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0\r\n\ufeff", exclude_categories=["Cs"]), max_size=9), min_size=2
    ),
    st.sampled_from(["\r", "\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-16", "utf-32"]),
    st.integers(1, 9),
)
def test_lines_are_the_same_in_every_encoding_and_however_pieces_fall(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], end: str, encoding: str, piece: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "l"
    path.write_bytes(("x" + end + end.join(rows) + end).encode(encoding))
    from stages.ingest import encodings

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "_PIECE", piece)
        read = list(text_files.lines(Unit((InputFile("l", str(path)),))))
    assert read == [b"x", *(row.encode() for row in rows)]


def test_a_line_without_an_end_costs_no_memory_in_any_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LONGEST", 50)
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "l").write_bytes(("a\r" + "b" * 3_000_000 + "\rc").encode(encoding))
        assert list(text_files.lines(Unit((InputFile("l", str(tmp_path / "l")),)))) == [b"a", None, b"c"]
