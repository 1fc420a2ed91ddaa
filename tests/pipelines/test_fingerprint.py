"""Fingerprints change with what makes the result, and with nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.fingerprint import FileDigests, fingerprint, fingerprinted
from stages.base.contract import FingerprintedAs, FingerprintedUnless, NotFingerprinted, StageConfig, UserError


class Inner(StageConfig):
    radius: int = 3
    threads: Annotated[int, NotFingerprinted] = 4


class Renamed(StageConfig):
    """`Inner` after its field was renamed; `kind` has a value that was."""

    reach: Annotated[int, FingerprintedAs("radius")] = 3
    threads: Annotated[int, NotFingerprinted] = 4


class Grown(StageConfig):
    """`Inner` after it got another field."""

    radius: int = 3
    threads: Annotated[int, NotFingerprinted] = 4
    shape: Annotated[str, FingerprintedUnless("round")] = "round"


class Kind(StageConfig):
    kind: Annotated[str, FingerprintedAs(values={"new": "old"})]


class Outer(StageConfig):
    lr: float = 1e-3
    inner: Inner = Inner()
    by_name: dict[str, Inner] = {}
    workers: Annotated[int, NotFingerprinted] = 2


def mark(config: StageConfig, **inputs: list[str]) -> str:
    return fingerprint("stage", 1, fingerprinted(config), inputs)


def test_fields_marked_so_never_change_a_fingerprint_at_any_depth() -> None:
    plain = mark(Outer(by_name={"a": Inner()}))
    assert plain == mark(Outer(workers=64, inner=Inner(threads=9), by_name={"a": Inner(threads=1)}))


@pytest.mark.parametrize(
    "changed",
    [Outer(lr=2e-3), Outer(inner=Inner(radius=4)), Outer(by_name={"a": Inner()})],
    ids=["field", "nested", "key added"],
)
def test_every_other_field_changes_it(changed: Outer) -> None:
    assert mark(changed) != mark(Outer())


def test_a_renamed_field_or_value_keeps_its_old_spelling() -> None:
    assert mark(Renamed(reach=5)) == mark(Inner(radius=5)) != mark(Renamed(reach=6))
    assert fingerprinted(Kind(kind="new")) == {"kind": "old"}
    assert fingerprinted(Kind(kind="other")) == {"kind": "other"}


def test_a_field_added_later_counts_only_where_it_changes_what_was_done_before() -> None:
    assert mark(Grown()) == mark(Inner())
    assert fingerprinted(Grown(shape="square")) == {"radius": 3, "shape": "square"}


def test_stage_version_inputs_and_files_change_it() -> None:
    base = fingerprint("stage", 1, {}, {"pairs": ["a"]})
    others = [
        fingerprint("other", 1, {}, {"pairs": ["a"]}),
        fingerprint("stage", 2, {}, {"pairs": ["a"]}),
        fingerprint("stage", 1, {}, {"pairs": ["b"]}),
        fingerprint("stage", 1, {}, {"raw": ["a"]}),
        fingerprint("stage", 1, {}, {"pairs": ["a"]}, files="x"),
    ]
    assert len({base, *others}) == 6


@given(st.dictionaries(st.text(max_size=5), st.integers(), min_size=2))
def test_key_order_does_not_matter(config: dict[str, int]) -> None:
    turned = dict(reversed(list(config.items())))
    assert fingerprint("s", 1, config, {}) == fingerprint("s", 1, turned, {})


def test_outside_files_count_by_content_not_by_time_or_place(tmp_path: Path) -> None:
    for artifact_dir in ("one", "two"):
        (tmp_path / artifact_dir).mkdir()
        (tmp_path / artifact_dir / "list.tsv").write_text("caption\turl\n")
    os.utime(tmp_path / "two" / "list.tsv", (1, 1))
    digests = FileDigests(tmp_path / "memory.json")
    one = digests.digest([str(tmp_path / "one")], "sources.x.paths")
    assert one == digests.digest([str(tmp_path / "two")], "sources.x.paths")
    (tmp_path / "two" / "list.tsv").write_text("caption\turl2\n")
    assert one != digests.digest([str(tmp_path / "two")], "sources.x.paths")


def test_digests_are_remembered_between_processes(tmp_path: Path) -> None:
    file = tmp_path / "big.bin"
    file.write_bytes(b"abc")
    first = FileDigests(tmp_path / "memory.json").digest([str(file)], "k")
    stat = file.stat()
    file.write_bytes(b"xyz")  # same size; with the old time it cannot be told apart, which shows the memory is used
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert FileDigests(tmp_path / "memory.json").digest([str(file)], "k") == first


def test_files_that_an_operating_system_leaves_in_a_folder_change_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "1.dcm").write_bytes(b"one")
    first = FileDigests(tmp_path / "memory.json").digest([str(folder)], "k")
    for name in (".DS_Store", "sub/._1.dcm", "sub/.DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"Finder was here")
    assert FileDigests(tmp_path / "memory.json").digest([str(folder)], "k") == first
    (folder / "sub" / "2.dcm").write_bytes(b"two")
    assert FileDigests(tmp_path / "memory.json").digest([str(folder)], "k") != first


def test_a_missing_file_is_one_line_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^sources\.laion\.paths: no file or folder .*/nowhere; put it there"):
        FileDigests(tmp_path / "m.json").digest([str(tmp_path / "nowhere")], "sources.laion.paths")
