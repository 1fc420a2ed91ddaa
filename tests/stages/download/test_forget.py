"""The scratch folder of an unfinished download loses the journals with a forgotten image, and keeps the others."""

from __future__ import annotations

from pathlib import Path

from stages.download.forget import forget_scratch
from stages.download.journal import Journal
from stages.download.outcome import Failure


def test_only_journals_that_are_known_to_be_clean_are_kept(tmp_path: Path) -> None:
    for partition, uid in (("00000", "a" * 32), ("00001", "b" * 32)):
        # Not closed, as a kill leaves it: closing it removes the folder.
        Journal(tmp_path / "download" / partition, tmp_path).fail(uid, Failure("http_410"))
    (tmp_path / "download" / "00002").mkdir()
    (tmp_path / "download" / "00002" / "images").write_bytes(b"pixels")  # without a journal
    forget_scratch(tmp_path, {"b" * 32})
    assert [folder.name for folder in (tmp_path / "download").iterdir()] == ["00000"]
    forget_scratch(tmp_path, {"c" * 32})
    assert (tmp_path / "download" / "00000" / "journal").exists()
