"""Files of an artifact are read by Arrow without the interpreter, which a command that ends may no longer give it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.base.artifact import Artifact, LocalFile

ROOT = Path(__file__).resolve().parents[3]
UIDS = sorted(hashlib.sha256(str(n).encode()).hexdigest()[:32] for n in range(2000))

#: Looks a uid up and prints how many threads that started.
LOOK_UP = """
import os, sys
import pipelines.provenance.find as find
from stages.base.artifact import Artifact
before = len(os.listdir("/proc/self/task"))
rows = find.rows(Artifact(sys.argv[1]), "pairs-*.parquet", "uid", sys.argv[2])
print(len(rows), len(os.listdir("/proc/self/task")) - before)
"""


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    names = ["pairs-00000.parquet", "pairs-00001.parquet"]
    for number, name in enumerate(names):
        uids = UIDS[1000 * number : 1000 * (number + 1)]
        pq.write_table(pa.table({"uid": uids, "caption": uids}), tmp_path / name, row_group_size=300)
    manifest = {"fingerprint": "f", "counts": {}, "files": [{"name": name} for name in names]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return Artifact(str(tmp_path))


def test_arrow_reads_a_local_file_without_the_python_object(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needs_the_interpreter(*_: Any) -> None:
        raise AssertionError("Arrow called Python")

    for name in ("read", "read1", "readinto", "seek", "tell"):
        monkeypatch.setattr(LocalFile, name, needs_the_interpreter, raising=False)
    with artifact.open("pairs-00000.parquet") as file:
        assert pq.read_table(file, columns=["uid"])["uid"].to_pylist() == UIDS[:1000]
    with artifact.open("pairs-00001.parquet") as file:
        assert pq.ParquetFile(file).read()["caption"].to_pylist() == UIDS[1000:]


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize(("uid", "found"), [(UIDS[1234], 1), ("0" * 32, 0), ("f" * 32, 0)])
def test_looking_a_sample_up_starts_no_thread(artifact: Artifact, uid: str, found: int) -> None:
    """A thread of Arrow that is still at work when `pairmill why` ends aborts the process."""
    command = [sys.executable, "-c", LOOK_UP, artifact.url, uid]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == [str(found), "0"]
