"""The benchmarks' images: hashed with the same code as the training images, then looked for among them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.artifact import Artifact
from stages.contract import UserError
from stages.imagehash import (
    THUMBNAIL_BYTES,
    UNDECODABLE,
    decode_rgb,
    perceptual_signature,
    pixel_sha256,
)
from stages.select.config import BenchmarkImages, Contamination, Near
from stages.select.likeness import Pictures, same_pictures

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("problem", pa.string()),
        ("pixel_sha256", pa.string()),
        ("phash", pa.string()),
        ("phash_rgb", pa.string()),
        ("thumbnail", pa.binary(THUMBNAIL_BYTES)),
    ]
)


@dataclass(frozen=True)
class Found:
    """Training images that show a benchmark's: per row of the table, the benchmark image's file name, or null."""

    benchmark: str
    files: pa.Array


def contaminated(
    images: pa.Table,
    rule: Contamination,
    benchmarks: Mapping[str, BenchmarkImages],
    worlds: Mapping[str, Artifact],
) -> Iterator[Found]:
    """Look for each benchmark's images, in alphabetical order of the benchmarks, among all rows.

    Raises UserError for a benchmark without images or with one that cannot be decoded.
    """
    hashed: dict[BenchmarkImages, pa.Table] = {}
    for name in sorted(benchmarks):
        where = benchmarks[name]
        if where not in hashed:
            hashed[where] = _hashes(name, where, worlds)
        held_out = hashed[where]
        match = np.full(images.num_rows, -1, dtype=np.int64)
        if rule.near is not None:
            match = _near(images, held_out, rule.near)
        if rule.exact:
            exact = pc.index_in(images["pixel_sha256"], value_set=held_out["pixel_sha256"].combine_chunks())
            position = pc.fill_null(exact, -1).to_numpy().astype(np.int64)
            match = np.where(position >= 0, position, match)
        files = held_out["file"].combine_chunks()
        yield Found(name, files.take(pa.array(match, mask=match < 0)))


def _near(images: pa.Table, held_out: pa.Table, near: Near) -> NDArray[np.int64]:
    """Per image the first benchmark image that shows the same picture, or -1."""
    none = held_out.num_rows
    match = np.full(images.num_rows, none, dtype=np.int64)
    for row, other in same_pictures(Pictures.of(images, near.hash), Pictures.of(held_out, near.hash), near):
        np.minimum.at(match, row, other)
    return np.where(match == none, -1, match)


def _hashes(name: str, where: BenchmarkImages, worlds: Mapping[str, Artifact]) -> pa.Table:
    import ray

    if where.world is not None:
        artifact = worlds[where.world]
        prefix = f"{where.images.strip('/')}/" if where.images else ""
        folder, files = artifact.url, [file for file in artifact.names() if file.startswith(prefix)]
    else:
        folder, files = str(where.folder), _listing(name, str(where.folder))
    files = sorted(file for file in files if file.lower().endswith(_EXTENSIONS))
    if not files:
        place = f"{where.images!r} of world {where.world}" if where.world else where.folder
        raise UserError(f"benchmarks.{name}: no image in {place}; name the folder that holds them")
    rows = ray.data.from_arrow(pa.table({"file": files}))
    # Small blocks, so that a few thousand images occupy all CPUs.
    blocks = rows.repartition(min(64, -(-len(files) // 128))).map_batches(
        partial(_hash_batch, folder=folder), batch_format="pyarrow", batch_size=128
    )
    table = pa.concat_tables(ray.get(blocks.to_arrow_refs())).cast(_SCHEMA).sort_by("file")
    broken = table.filter(pc.is_valid(table["problem"]))
    if broken.num_rows:
        file = broken["file"][0].as_py()
        raise UserError(f"benchmarks.{name}: {file} is not an image ({broken['problem'][0]}); mend or remove it")
    return table


def _listing(name: str, folder: str) -> list[str]:
    if "://" not in folder:
        if not os.path.isdir(folder):
            raise UserError(f"benchmarks.{name}: no folder {folder}; name the one that holds its images")
        return [file.relative_to(folder).as_posix() for file in Path(folder).rglob("*") if file.is_file()]
    import fsspec

    files, root = fsspec.core.url_to_fs(folder)
    return [path.removeprefix(root).lstrip("/") for path in files.find(root)]


def _hash_batch(batch: pa.Table, folder: str) -> pa.Table:
    store = Artifact(folder)
    rows = []
    for file in batch["file"].to_pylist():
        try:
            with store.open(file) as opened:
                rgb = decode_rgb(opened.read())
        except UNDECODABLE as problem:
            rows.append({"file": file, "problem": type(problem).__name__})
            continue
        rows.append({"file": file, "pixel_sha256": pixel_sha256(rgb), **perceptual_signature(rgb)})
    return pa.Table.from_pylist(rows, _SCHEMA)
