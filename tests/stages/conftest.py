"""Fixtures for stages that read fetched images: artifacts in the formats of docs/formats.md, made without a network."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.base.artifact import Artifact, file_sha256
from stages.base.pairs import image_uid, pair_uid, pairs_schema


def _seal(folder: Path, stage: str, name: str, **source: Any) -> Artifact:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    listed = [
        {"name": p.relative_to(folder).as_posix(), "bytes": p.stat().st_size, "sha256": file_sha256(p)} for p in files
    ]
    fingerprint = hashlib.sha256(json.dumps([stage, name, listed]).encode()).hexdigest()
    config = {"name": name, **({"source": source} if source else {})}
    manifest = {"stage": stage, "fingerprint": fingerprint, "config": config, "counts": {}, "files": listed}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Artifact(str(folder))


@pytest.fixture
def seal() -> Callable[[Path, str, str], Artifact]:
    """Turns a folder of files into a finished artifact: `seal(folder, stage, name)`."""
    return _seal


@pytest.fixture
def fetched_source(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Artifact, Artifact]]:
    """Makes the `pairs` and `raw` artifacts of one source.

    `fetched_source(name, images, partitions=2)`, where `images` lists `(url, bytes or a failure's status, captions)`
    with an optional fourth item, the list's own columns. Where all captions are empty the source is image-only.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image, UnidentifiedImageError

    def make(name: str, images: Sequence[tuple[Any, ...]], partitions: int = 2) -> tuple[Artifact, Artifact]:
        root = tmp_path_factory.mktemp(name)
        (root / "pairs").mkdir()
        (root / "raw").mkdir()
        by_part: list[list[tuple[str, tuple[Any, ...]]]] = [[] for _ in range(partitions)]
        for item in images:
            uid = image_uid(name, item[0])
            by_part[int(uid[:4], 16) % partitions].append((uid, item))
        for number, part in enumerate(by_part):
            part.sort(key=lambda entry: entry[0])
            pairs, attempts = [], []
            with tarfile.open(root / "raw" / f"raw-{number:05}.tar", "w") as tar:
                for uid, (url, body, captions, *meta) in part:
                    said = json.dumps(meta[0] if meta else {})
                    pairs.extend(
                        {
                            "uid": pair_uid(name, url, caption),
                            "image_uid": uid,
                            "source": name,
                            "url": url,
                            "path": None,
                            "caption": caption,
                            "license": None,
                            "meta": said,
                        }
                        for caption in captions
                    )
                    row: dict[str, Any] = {"image_uid": uid, "source": name, "status": body}
                    if isinstance(body, bytes):
                        info = tarfile.TarInfo(f"{uid}.png")
                        info.size = len(body)
                        offset = tar.offset + 512
                        tar.addfile(info, io.BytesIO(body))
                        try:
                            kind = Image.open(io.BytesIO(body)).format
                        except UnidentifiedImageError:
                            kind = None
                        row |= {"status": "success", "bytes": len(body), "format": kind, "offset": offset}
                        row |= {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
                    attempts.append(row)
            pairs.sort(key=lambda row: (row["image_uid"], row["uid"]))
            table = pa.Table.from_pylist(pairs, pairs_schema())
            pq.write_table(table, root / "pairs" / f"pairs-{number:05}.parquet")
            integers = {name: pa.int64() for name in ("bytes", "offset", "length")}
            strings = {name: pa.string() for name in ("image_uid", "source", "status", "format", "sha256")}
            tried = pa.Table.from_pylist(attempts, pa.schema({**strings, **integers}))
            pq.write_table(tried, root / "raw" / f"attempts-{number:05}.parquet")
        image_only = images and not any(caption for _, _, captions, *_ in images for caption in captions)
        source = {"captions": "none"} if image_only else {}
        return _seal(root / "pairs", "ingest", name, **source), _seal(root / "raw", "download", name)

    return make


@pytest.fixture(scope="session")
def as_bytes() -> Callable[..., bytes]:
    """Encodes a Pillow image or an array: `as_bytes(image, "JPEG", quality=85)`; PNG unless said otherwise."""
    from PIL import Image

    def encode(image: Any, kind: str = "PNG", **options: Any) -> bytes:
        opened = image if isinstance(image, Image.Image) else Image.fromarray(image)
        out = io.BytesIO()
        opened.save(out, kind, **options)
        return out.getvalue()

    return encode


@pytest.fixture(scope="session")
def scene() -> Callable[..., Any]:
    """A photograph-like picture, different for every seed: `scene(seed, width=96, height=96)`."""
    import numpy as np
    from PIL import Image

    def make(seed: int, width: int = 96, height: int = 96) -> Image.Image:
        random = np.random.default_rng(seed)
        coarse = random.integers(20, 200, (7, 7, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    return make
