"""Small artifacts of the stages before the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.base.artifact import Artifact, file_sha256
from stages.base.pairs import image_uid, pair_uid, pairs_schema


def _finish(folder: Path, stage: str, config: Mapping[str, Any]) -> Artifact:
    files = [{"name": p.name, "size": p.stat().st_size, "sha256": file_sha256(p)} for p in sorted(folder.iterdir())]
    manifest = {"stage": stage, "fingerprint": f"{stage}-of-a-test", "config": config, "counts": {}, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Artifact(str(folder))


@pytest.fixture
def corpus_inputs(tmp_path: Path, write_verdicts: Callable[..., None]) -> Callable[..., dict[str, list[Artifact]]]:
    """`pairs` and `verdicts` from source -> captions; captions that start with `-` were dropped by selection. A
    source of empty captions is image-only. `files` are the files of pairs per source, `range_rows` is the size of the
    ranges."""

    def make(
        sources: Mapping[str, Sequence[str]], private: Sequence[str] = (), files: int = 1, range_rows: int = 1
    ) -> dict[str, list[Artifact]]:
        pairs, verdicts = [], []
        root = Path(mkdtemp(dir=tmp_path))
        for name, captions in sources.items():
            rows = []
            for number, caption in enumerate(captions):
                url = f"http://{name}/{number}.jpg"
                uid = pair_uid(name, url, caption)
                rows.append((uid, image_uid(name, url), name, url, None, caption, None, "{}"))
                verdicts.append((uid, rows[-1][1], name, not caption.startswith("-"), "", ""))
            folder = root / f"pairs-{name}"
            folder.mkdir()
            columns = [list(column) for column in zip(*sorted(rows, key=lambda r: (r[1], r[0])), strict=True)]
            table = pa.table(columns, schema=pairs_schema())
            size = -(-len(table) // files)
            for part in range(files):
                pq.write_table(table.slice(part * size, size), folder / f"pairs-{part:05d}.parquet")
            source = {"kind": "laion", "private": name in private}
            config = {"name": name, "source": source if any(captions) else {**source, "captions": "none"}}
            pairs.append(_finish(folder, "ingest", config))
        folder = root / "verdicts"
        folder.mkdir()
        names = ["uid", "image_uid", "source", "keep", "reason", "detail"]
        write_verdicts(folder, [dict(zip(names, row, strict=True)) for row in verdicts], pairs, range_rows)
        return {"pairs": pairs, "verdicts": [_finish(folder, "select", {})]}

    return make


@pytest.fixture
def world_of_text(tmp_path: Path) -> Callable[[Mapping[str, str]], Artifact]:
    """A world artifact that holds text files by name."""

    def make(files: Mapping[str, str]) -> Artifact:
        folder = tmp_path / "world"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
        return _finish(folder, "world", {})

    return make
