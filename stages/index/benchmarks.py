"""The benchmarks' images: hashed with the same code as the training images, once per content, then looked for."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy

from stages.base.artifact import Artifact, file_sha256, is_remote
from stages.base.cache import Cache
from stages.base.contract import UserError
from stages.base.tasks import Tasks
from stages.imaging import decode, formats, metadata, perceptual_hash
from stages.imaging.decode import UndecodableImage, decode_rgb
from stages.imaging.perceptual_hash import (
    BITS,
    PATCH_BYTES,
    THUMBNAIL_BYTES,
    perceptual_signature,
    pixel_sha256,
)
from stages.index.crops import MATCHES
from stages.index.held_out import HeldOut
from stages.index.matches import refuse_crowds
from stages.index.schema import BENCHMARK_CROPS, BENCHMARK_EXACT, BENCHMARK_NEAR, NEAR

_BUCKET = 256  # images, about, that are hashed by one task and cached in one file
_HASHES = pa.schema(
    [
        ("sha256", pa.string()),
        ("problem", pa.string()),
        ("pixel_sha256", pa.binary(32)),
        *((name, pa.binary(bits // 8)) for name, bits in BITS.items()),
        ("thumbnail", pa.binary(THUMBNAIL_BYTES)),
        ("patch", pa.binary(PATCH_BYTES)),
    ]
)


def hashed(tasks: Tasks, benchmarks: Mapping[str, HeldOut], cache: str) -> pa.Table:
    """One row per image of each benchmark: `benchmark`, `file`, and the columns by which copies are found.

    Sorted by (benchmark, file). Equal contents are hashed once, and not again as long as `cache` has them. Raises
    UserError for a file that is no image.
    """
    rows = _digests(tasks, benchmarks)
    if not rows.num_rows:
        return pa.schema([("benchmark", pa.string()), ("file", pa.string()), *_HASHES]).empty_table()
    columns = (rows[name].to_pylist() for name in ("sha256", "folder", "file"))
    places = {digest: (folder, file) for digest, folder, file in zip(*columns, strict=True)}
    # Buckets by content, so that one more image leaves all but one of them as they were.
    count = 1 << max(0, (len(places) // _BUCKET).bit_length() - 1)
    buckets: dict[int, list[str]] = {}
    for digest in sorted(places):
        buckets.setdefault(int(digest[:8], 16) % count, []).append(digest)
    code = [file_sha256(str(module.__file__)) for module in (decode, formats, metadata, perceptual_hash)]
    calls = ((cache, code, bucket, [places[digest] for digest in bucket]) for bucket in buckets.values())
    known = pa.concat_tables(tasks.map(_hash_bucket, calls)).combine_chunks()
    table = known.take(pc.index_in(rows["sha256"], value_set=known["sha256"].combine_chunks()).combine_chunks())
    broken = pc.is_valid(table["problem"])
    if pc.any(broken).as_py():
        name, file = (rows[column].filter(broken)[0] for column in ("benchmark", "file"))
        problem = table["problem"].filter(broken)[0]
        raise UserError(f"benchmarks.{name}: {file} is not an image ({problem}); mend or remove it")
    for name in ("file", "benchmark"):
        table = table.add_column(0, name, rows[name])
    return table.drop_columns(["problem"])


def _digests(tasks: Tasks, benchmarks: Mapping[str, HeldOut]) -> pa.Table:
    """`benchmark`, `folder`, `file`, `sha256` of every image, sorted by (benchmark, file)."""
    read: dict[tuple[str, str], str] = {}
    for it in benchmarks.values():
        folder, files = it.folder, [f for f in it.files if f not in it.sha256 and (it.folder, f) not in read]
        parts = [files[begin : begin + _BUCKET] for begin in range(0, len(files), _BUCKET)]
        for part, digests in zip(parts, tasks.map(_read_digests, ((folder, part) for part in parts)), strict=True):
            read.update({(folder, file): digest for file, digest in zip(part, digests, strict=True)})
    rows = [
        {"benchmark": name, "folder": it.folder, "file": file, "sha256": it.sha256.get(file) or read[it.folder, file]}
        for name, it in sorted(benchmarks.items())
        for file in it.files
    ]
    return pa.Table.from_pylist(rows, pa.schema([(n, pa.string()) for n in ("benchmark", "folder", "file", "sha256")]))


def _read_digests(folder: str, files: Sequence[str]) -> list[str]:
    store, digests = Artifact(folder), []
    for file in files:
        with store.open(file) as opened:
            digests.append(hashlib.sha256(opened.read()).hexdigest())
    return digests


def _hash_bucket(
    cache: str, code: Sequence[str], digests: Sequence[str], places: Sequence[tuple[str, str]]
) -> pa.Table:
    """Rows of :data:`_HASHES` for contents, from the cache or from a place that has each."""
    # The last bit can differ between versions of what decodes and transforms.
    versions = [*code, PIL.__version__, np.__version__, scipy.__version__]
    key = Cache.key(what="benchmark images", versions=versions, sha256=list(digests))
    held = Cache(cache).get(key, ".parquet")
    if held is not None:
        table = pq.read_table(held).cast(_HASHES)
        if is_remote(cache):  # a copy
            shutil.rmtree(held.parent, ignore_errors=True)
        return table
    rows = [_hash(digest, folder, file) for digest, (folder, file) in zip(digests, places, strict=True)]
    table = pa.Table.from_pylist(rows, _HASHES)
    with tempfile.TemporaryDirectory(prefix="pairmill-index-") as folder:
        made = Path(folder, "made.parquet")
        pq.write_table(table, made, compression="zstd")
        Cache(cache).put(key, made, ".parquet")
    return table


def _hash(digest: str, folder: str, file: str) -> dict[str, object]:
    try:
        with Artifact(folder).open(file) as opened:
            rgb = decode_rgb(opened.read())
    except UndecodableImage as problem:
        return {"sha256": digest, "problem": str(problem)}
    signature = perceptual_signature(rgb)
    hashes = {name: bytes.fromhex(signature[name]) for name in BITS}
    pixels = bytes.fromhex(pixel_sha256(rgb))
    seen = {name: signature[name] for name in ("thumbnail", "patch")}
    return {"sha256": digest, "pixel_sha256": pixels, **hashes, **seen}


def exact_matches(found: Sequence[tuple[np.ndarray, np.ndarray]], held: pa.Table) -> pa.Table:
    """Table `BENCHMARK_EXACT` from what each range has: (global rows, rows of `held`) of equal pixels."""
    first: dict[int, int] = {}
    for rows, images in found:
        for row, image in zip(rows.tolist(), images.tolist(), strict=True):
            first[image] = min(row, first.get(image, row))  # the first of all ranges leads the group
    hit = np.array(sorted(first), dtype=np.int64)
    return _named(np.array([first[image] for image in hit.tolist()], dtype=np.int64), hit, held, {}, BENCHMARK_EXACT)


def near_to_benchmarks(found: Sequence[pa.Table], held: pa.Table, most: int) -> pa.Table:
    """Table `BENCHMARK_NEAR` by one hash, from the matches of each range: (global row, row of `held`, ...)."""
    refuse_crowds(sum(table.num_rows for table in found), most)
    matches = pa.concat_tables([NEAR.empty_table(), *found])
    measured = {name: matches[name] for name in BENCHMARK_NEAR.names[3:]}
    return _named(matches["first"].to_numpy(), matches["second"].to_numpy(), held, measured, BENCHMARK_NEAR)


def crops_of_benchmarks(found: Sequence[pa.Table], held: pa.Table, most: int) -> pa.Table:
    """Table `BENCHMARK_CROPS` from the matches of each range: (global row, row of `held`, ...)."""
    refuse_crowds(sum(table.num_rows for table in found), most)
    matches = pa.concat_tables([MATCHES.empty_table(), *found])
    measured = {name: matches[name] for name in BENCHMARK_CROPS.names[3:]}
    return _named(matches["first"].to_numpy(), matches["second"].to_numpy(), held, measured, BENCHMARK_CROPS)


def _named(
    images: np.ndarray, hits: np.ndarray, held: pa.Table, columns: Mapping[str, pa.ChunkedArray], schema: pa.Schema
) -> pa.Table:
    which = pa.array(hits)
    names = held["benchmark"].combine_chunks().dictionary_encode()  # sorted, since the rows are
    table = pa.table(
        {
            "image": pa.array(images),
            "benchmark": pa.DictionaryArray.from_arrays(names.indices.cast(pa.int16()).take(which), names.dictionary),
            "file": held["file"].combine_chunks().take(which),
            **columns,
        },
        schema=schema,
    )
    return table.take(pa.array(np.lexsort((hits, images)))).combine_chunks()
