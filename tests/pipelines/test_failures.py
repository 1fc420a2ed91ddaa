"""What fails is told in one line each, all of it, and a disk that takes no more is told whichever library wrote."""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.failures import RunFailures, UserErrors, disk_error, disk_errors_told, joined, lines_of
from pipelines.run_partition import ArtifactJob, run_partition
from stages.base.contract import Partition, UserError

FULL = "/dev/full"
TABLE = pa.table({"a": np.random.default_rng(0).random(200_000)})


def with_numpy(path: Path) -> None:
    np.save(path, np.zeros(4_000_000))


def with_arrow(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, TABLE.schema) as writer:
        for _ in range(20):
            writer.write_table(TABLE)


def with_parquet(path: Path) -> None:
    with pq.ParquetWriter(path, TABLE.schema, compression="none") as writer:
        for _ in range(20):
            writer.write_table(TABLE)


def with_python(path: Path) -> None:
    path.write_bytes(bytes(32_000_000))


def with_tar(path: Path) -> None:
    source = path.with_suffix(".source")
    source.touch()
    os.truncate(source, 32_000_000)
    with tarfile.open(path, "w") as tar:
        tar.add(source)


def with_torch(path: Path) -> None:
    import torch

    torch.save(torch.zeros(4_000_000), path)


def with_safetensors(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(4_000_000)}, path)


WRITERS: list[Callable[[Path], None]] = [
    with_numpy,
    with_arrow,
    with_parquet,
    with_python,
    with_tar,
    with_torch,
    with_safetensors,
]


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_is_one_line_whichever_library_writes(small_disk: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(UserError) as failure, disk_errors_told(str(small_disk), "s3://bucket/scratch"):
        write(small_disk / "file")
    message = str(failure.value)
    assert message.startswith(str(small_disk))
    assert ": no space is left on this disk: free some" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("code", "words"), [(errno.EROFS, "read-only"), (errno.EDQUOT, "quota"), (errno.EFBIG, "ulimit -f")]
)
def test_a_disk_that_takes_nothing_for_another_reason_says_which(code: int, words: str) -> None:
    told = disk_error(OSError(code, os.strerror(code), "/data/x.tar"), ["/data"])
    assert told is not None
    assert str(told).startswith("/data/x.tar: ")
    assert words in str(told)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"),
        OSError("100 requested and 50 written"),
        OSError(errno.EIO, "Input/output error"),
    ],
)
def test_other_errors_are_not_put_down_to_the_disk(error: Exception, tmp_path: Path) -> None:
    assert disk_error(error, [str(tmp_path)]) is None


@pytest.mark.skipif(not Path(FULL).exists(), reason="needs /dev/full")
def test_a_partition_whose_disk_is_full_ends_in_one_line_and_leaves_nothing_half_done(tmp_path: Path, toy: Any) -> None:
    numbers = toy.stages["numbers"]

    class Full(numbers):  # type: ignore[misc, valid-type]
        def run(self, partition: Partition, context: Any) -> None:
            (context.out / "whole.txt").write_text("whole")
            with open(FULL, "w") as full:
                full.write("x" * 10_000)

    url = str(tmp_path / "artifact")
    job = ArtifactJob("numbers", Full(toy.workspace().dag["numbers"].config), "f", url, {}, str(tmp_path / "s"), {})
    with pytest.raises(UserError, match="no space is left on this disk"):
        run_partition(job, Partition("00000"))
    assert job.artifact_dir.committed() == set()
    assert [path for path in Path(url).rglob("*") if path.is_file()] == []


def test_every_node_that_failed_is_told_in_a_line_of_its_own() -> None:
    mistakes = {f"ingest[{name}]": UserError(f"sources.{name}.paths: no such file") for name in "abc"}
    several = joined(mistakes)
    assert isinstance(several, UserErrors)
    assert lines_of(several) == [f"sources.{name}.paths: no such file" for name in "abc"]
    bug = joined(
        {
            **mistakes,
            "download[d]": ValueError("first\nsecond"),
            "download[e]": UserError("full"),
            "x": UserError("full"),
        }
    )
    assert isinstance(bug, RunFailures)
    assert lines_of(bug)[3:] == ["download[d]: ValueError: first second", "full"]
    only = UserError("alone")
    assert joined({"ingest[a]": only}) is only


def test_nodes_that_fail_side_by_side_are_all_told(toy: Any) -> None:
    workspace = toy.workspace(numbers={"fail_at": "00000"})
    dag = workspace.dag
    for name in ("b", "c"):
        from dataclasses import replace

        dag[f"numbers[{name}]"] = replace(
            dag["numbers"], instance=name, config=dag["numbers"].config.model_copy(update={"word": name})
        )
    from pipelines.cluster import ClusterConfig
    from pipelines.progress import Progress
    from pipelines.runner import Runner, pending

    todo = pending(workspace, [node for node in dag if node.startswith("numbers")])
    with pytest.raises(RunFailures) as failure, Progress() as progress:
        Runner(workspace, ClusterConfig(cpus=2), toy.tracker, progress, False).run(todo)  # type: ignore[arg-type]
    assert sorted(lines_of(failure.value)) == [
        f"numbers{name}: ValueError: partition 00000 cannot be made" for name in ("", "[b]", "[c]")
    ]
