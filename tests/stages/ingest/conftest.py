"""Fixtures of the ingest tests: run the stage over files written by a test, and read what came out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.base.artifact import Artifact


@pytest.fixture
def ingest(run_stage: Callable[..., Artifact]) -> Callable[..., Artifact]:
    """`ingest({"kind": ..., "paths": ...}, rows_per_partition=...)` -> the artifact of source `test`."""
    from stages.ingest.config import IngestConfig
    from stages.ingest.plugins import source_config
    from stages.ingest.stage import Ingest

    def run(fields: dict[str, Any], world: Artifact | None = None, reverse: bool = False, **settings: Any) -> Artifact:
        source = source_config("test", fields)
        config = IngestConfig(name="test", source=source, **settings)
        return run_stage(Ingest(config), {"world": [world] if world else []}, reverse=reverse)

    return run


@pytest.fixture
def pairs() -> Callable[[Artifact], list[dict[str, Any]]]:
    """All rows of an artifact's pairs files, in order."""
    import pyarrow.parquet as pq

    def read(artifact: Artifact) -> list[dict[str, Any]]:
        return [row for name in artifact.names("pairs-*") for row in pq.read_table(artifact.path(name)).to_pylist()]

    return read


@pytest.fixture
def rejects() -> Callable[[Artifact], list[tuple[str, int, str]]]:
    """(file, row, reason) of all rejects, in order."""
    import pyarrow.parquet as pq

    def read(artifact: Artifact) -> list[tuple[str, int, str]]:
        rows = pq.read_table(artifact.path("rejects.parquet")).to_pylist()
        return [(row["file"], row["row"], row["reason"]) for row in rows]

    return read


@pytest.fixture
def contents() -> Callable[[Artifact], dict[str, str]]:
    """Name -> sha256 of every file of an artifact."""

    def read(artifact: Artifact) -> dict[str, str]:
        return {file["name"]: file["sha256"] for file in artifact.manifest["files"]}

    return read


@pytest.fixture
def tsv(tmp_path: Path) -> Callable[..., str]:
    """Write lines to a file of the test; returns its path."""

    def write(*lines: bytes, name: str = "list.tsv") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return str(path)

    return write
