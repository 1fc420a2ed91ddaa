"""A synthetic pool for `benchmarks/selection.py`: the artifacts that `select` reads, in the formats of their stages."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from stages.base.artifact import MANIFEST, file_sha256
from stages.base.pairs import pairs_schema
from stages.base.ranges import RANGES, RangePart, as_json, bundled
from stages.base.uids import packed
from stages.index.schema import (
    BENCHMARK_CROPS,
    BENCHMARK_EXACT,
    BENCHMARK_NEAR,
    BENCHMARK_TEXTS,
    IMAGES,
    NEAR,
    PAIRS,
    file_of,
)
from stages.shard.writer import ShardWriter

PER_SHARD = 10_000
"""Images per raw shard and pairs file, as `ingest.pairs_per_file` is by default."""
PICTURES = 256
"""Different pictures; images share them, since a report reads a few hundred only."""

Seal = Mapping[str, Any]


class Pool:
    """`rows` images of several sources with one pair each, drawn from a seed.

    88% of the images were fetched; 2% of those have the pixels of another one, 6% are in clusters of near copies of 2
    to 40 pictures; 1 in 2,000 is in a benchmark, and as many captions are. Signals follow rough shapes of web data, so
    that every rule of the benchmark drops some.
    """

    def __init__(self, rows: int, sources: list[str], seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.rows = rows
        self.sources = sources
        self.image_uids = self._uids()
        self.uids = self._uids()
        self.image_of = self.random.permutation(rows).astype(np.int32)
        self.source = self.random.integers(0, len(sources), rows).astype(np.int16)
        self.fetched = self.random.random(rows) < 0.88
        self.shard = np.full(rows, -1, dtype=np.int32)
        for number in range(len(sources)):
            mine = np.flatnonzero(self.source == number)
            self.shard[mine] = np.arange(len(mine)) // PER_SHARD

    def _uids(self) -> NDArray[np.str_]:
        half = self.random.integers(0, 1 << 63, (2, self.rows), dtype=np.uint64)
        return np.sort(np.array([f"{a:016x}{b:016x}" for a, b in zip(*half.tolist(), strict=True)]))

    def _null(self, values: Any, kind: pa.DataType, there: NDArray[np.bool_]) -> pa.Array:
        return pa.array(values, kind, mask=~there)

    def images(self, extents: list[tuple[int, int]]) -> pa.Table:
        """All images, sorted by uid; `extents` are the places of the pictures in every raw shard."""
        random, rows, there = self.random, self.rows, self.fetched
        picture = random.integers(0, len(extents), rows)
        offset, length = (np.array(part)[picture] for part in zip(*extents, strict=True))
        status = np.where(there, "success", random.choice(["http_404", "timeout", "opt_out", "dns"], rows))
        group = np.arange(rows, dtype=np.int32)
        copies = np.flatnonzero(there & (random.random(rows) < 0.02))
        leaders = np.flatnonzero(there & ~np.isin(group, copies))
        of = leaders[random.integers(0, len(leaders), len(copies))]
        group[copies] = np.minimum(of, copies)
        group[of] = np.where(of < copies, of, copies)
        group = group[group]  # a copy that comes before what it copies leads both
        group[~there] = -1
        self.leaders = np.flatnonzero(group == np.arange(rows))
        width, height = (np.exp(random.normal(6.2, 0.6, rows)).astype(np.int32) + 16 for _ in range(2))
        self.width, self.height = width, height
        real = pa.float32()
        measured = {
            "bytes": (width.astype(np.int64) * height // 6, pa.int64()),
            "format": (random.choice(["JPEG", "PNG", "WEBP"], rows, p=[0.8, 0.1, 0.1]), pa.string()),
            "width": (width, pa.int32()),
            "height": (height, pa.int32()),
            "aspect_ratio": (np.maximum(width, height) / np.minimum(width, height), pa.float64()),
            "brightness": (random.normal(128, 40, rows), real),
            "contrast": (random.normal(55, 15, rows), real),
            "entropy": (8 - np.abs(random.normal(0, 0.8, rows)), real),
            "sharpness": (np.exp(random.normal(5, 1.5, rows)), real),
            "nsfw": (random.beta(0.3, 6, rows), real),
            "text_coverage": (random.beta(0.3, 4, rows), real),
            "faces": (random.poisson(0.4, rows), pa.int32()),
        }
        first = {
            "image_uid": pa.array(self.image_uids, pa.string()),
            "source": pa.array(self.source),
            "status": pa.array(status, pa.string()).dictionary_encode(),
            "host": pa.array(
                [f"host{n}.example" for n in random.zipf(1.4, rows) % 5000], pa.string()
            ).dictionary_encode(),
            "shard": self._null(self.shard, pa.int32(), there),
            "offset": self._null(offset, pa.int64(), there),
            "length": self._null(length, pa.int64(), there),
            "decoded": self._null(np.ones(rows, bool), pa.bool_(), there),
            "group": pa.array(group),
        }
        return pa.table({**first, **{n: self._null(v, kind, there) for n, (v, kind) in measured.items()}})

    def pairs(self) -> pa.Table:
        """All pairs, sorted by uid; `image` is a row of :meth:`images`."""
        random, rows = self.random, self.rows
        there = self.fetched[self.image_of]
        words = random.poisson(9, rows).astype(np.int32)
        scored = there & (random.random(rows) < 0.9)  # a source's list may be silent
        real = pa.float32()
        self.captions: dict[str, Any] = {
            "words": words,
            "characters": words * 6,
            "language": random.choice(["en", "de", "fr", "es", "ja"], rows, p=[0.7, 0.1, 0.1, 0.05, 0.05]),
            "similarity": random.normal(0.29, 0.04, rows).astype(np.float32),
        }
        self.scored = scored
        columns = {
            "uid": pa.array(self.uids, pa.string()),
            "image": pa.array(self.image_of),
            "source": pa.array(self.source[self.image_of]),
            "measured": pa.array(there),
            "characters": self._null(self.captions["characters"], pa.int32(), there),
            "words": self._null(words, pa.int32(), there),
            "repetition": self._null(random.beta(1, 12, rows), real, there),
            "letters": self._null(random.beta(20, 3, rows), real, there),
            "digits": self._null(random.beta(1, 20, rows), real, there),
            "language": self._null(self.captions["language"], pa.string(), there),
            "language_score": self._null(random.beta(8, 2, rows), real, there),
            "similarity": self._null(self.captions["similarity"], real, scored),
            "unsafe": self._null(random.beta(0.3, 6, rows), real, scored),
            "watermark": self._null(random.beta(0.5, 3, rows), real, scored),
        }
        assert list(columns)[: len(PAIRS)] == PAIRS.names
        return pa.table(columns)

    def near(self) -> pa.Table:
        """Every pair within each cluster of near copies, a third of them not confirmed, as rows of :meth:`images`."""
        random, leaders = self.random, self.leaders
        chosen = np.sort(random.permutation(leaders)[: int(0.06 * self.rows)])
        firsts, seconds = [], []
        start = 0
        shuffled = random.permutation(chosen)
        while start < len(shuffled):
            size = min(40, 2 + int(random.geometric(0.4)))
            cluster = np.sort(shuffled[start : start + size])
            a, b = np.triu_indices(len(cluster), 1)
            firsts.append(cluster[a])
            seconds.append(cluster[b])
            start += size
        first, second = (np.concatenate(part) if part else np.zeros(0, int) for part in (firsts, seconds))
        count = len(first)
        table = pa.table(
            {
                "first": first,
                "second": second,
                "distance": random.integers(1, 9, count),
                "difference": random.random(count) * 3,
                "relative_difference": 0.08 + random.random(count),
            }
        ).cast(NEAR)
        return table.sort_by([("first", "ascending"), ("second", "ascending")])

    def benchmark(self) -> tuple[pa.Table, pa.Table, pa.Table]:
        """Images with a benchmark's pixels, near ones, and captions with its n-grams."""
        random, few = self.random, max(1, self.rows // 4000)
        exact = np.sort(random.permutation(self.leaders)[:few])
        near = np.sort(random.permutation(self.leaders)[:few])
        texts = np.sort(random.permutation(self.rows)[: 2 * few])
        names = pa.array(["vqav2"] * few)
        exact_matches = {"image": exact, "benchmark": names, "file": [f"{n}.jpg" for n in range(few)]}
        close = {
            **exact_matches,
            "image": near,
            "distance": random.integers(0, 9, few),
            "difference": random.random(few),
        }
        close["relative_difference"] = random.random(few)
        captions = {"pair": texts, "benchmark": pa.array(["vqav2"] * len(texts)), "overlap": random.random(len(texts))}
        return tuple(  # type: ignore[return-value]
            pa.table(columns).cast(schema)
            for columns, schema in (
                (exact_matches, BENCHMARK_EXACT),
                (close, BENCHMARK_NEAR),
                (captions, BENCHMARK_TEXTS),
            )
        )

    def write_index(self, folder: Path, extents: list[tuple[int, int]], range_rows: int = 1_000_000) -> None:
        """The files of the `index` artifact."""
        tables = self.images(extents), self.pairs(), self.near()
        exact, near, texts = self.benchmark()
        parts = [
            (source, f"{shard:05d}") for source, shard in zip(self.source.tolist(), self.shard.tolist(), strict=True)
        ]
        write_ranges(folder, *tables, exact, near, texts, parts, range_rows)
        listed = [{"name": name, "private": False} for name in self.sources]
        (folder / "sources.json").write_text(json.dumps(listed))

    def write_source(self, number: int, pairs: Path, raw: Path) -> list[tuple[int, int]]:
        """The files of one source's `ingest` and `download` artifacts that a report looks into."""
        mine = np.flatnonzero(self.source[self.image_of] == number)
        shard = self.shard[self.image_of[mine]]
        name = self.sources[number]
        extents: list[tuple[int, int]] = []
        for part in range(int(self.shard[self.source == number].max(initial=0)) + 1):
            rows = mine[shard == part]
            images = self.image_uids[self.image_of[rows]]
            order = np.argsort(images, kind="stable")
            rows, images = rows[order], images[order]
            table = {
                "uid": self.uids[rows],
                "image_uid": images,
                "source": np.full(len(rows), name),
                "url": [f"https://example.com/{n}.jpg" for n in rows.tolist()],
                "path": pa.nulls(len(rows), pa.string()),
                "caption": [f"a caption of picture number {n}" for n in rows.tolist()],
                "license": np.full(len(rows), "CC-BY"),
                "meta": np.full(len(rows), "{}"),
            }
            pq.write_table(pa.table(table).cast(pairs_schema()), pairs / f"pairs-{part:05d}.parquet")
            if not extents:
                extents = _pictures(raw / "raw-00000.tar")
            else:
                (raw / f"raw-{part:05d}.tar").hardlink_to(raw / "raw-00000.tar")
        return extents


def write_ranges(
    folder: Path,
    images: pa.Table,
    pairs: pa.Table,
    near: pa.Table,
    exact: pa.Table,
    benchmark_near: pa.Table,
    texts: pa.Table,
    parts: Sequence[tuple[int, str]],
    range_rows: int,
    hash: str = "phash",
    crops: pa.Table | None = None,
) -> None:
    """The tables of an `index` artifact from plain ones over everything, in which a row is a row of `images` or `pairs`
    and images and uids are in order of their hex digits.

    `parts` names the part of every image. Images of a class are those of groups that `near` joins with distance and
    difference 0.
    """
    names = sorted(set(parts))
    number = {part: place for place, part in enumerate(names)}
    part = np.array([number[one] for one in parts], dtype=np.int64)
    order = np.argsort(part, kind="stable")
    row = np.empty(len(order), dtype=np.int64)
    row[order] = np.arange(len(order))
    group, classes = _labels(images["group"].to_numpy().astype(np.int64), near, row)
    image_of = pairs["image"].to_numpy()
    per_part = np.bincount(part, minlength=len(names)), np.bincount(part[image_of], minlength=len(names))
    counted = zip(names, *(counts.tolist() for counts in per_part), strict=True)
    ranges = bundled((RangePart(*name, *sizes) for name, *sizes in counted), range_rows)
    first, second = (classes[near[name].to_numpy().astype(np.int64)] for name in ("first", "second"))
    between = np.flatnonzero(first != second)
    edges = near.take(pa.array(between))
    low, high = np.minimum(first, second)[between], np.maximum(first, second)[between]
    edges = edges.set_column(0, "first", pa.array(low)).set_column(1, "second", pa.array(high)).cast(NEAR)
    edges = edges.sort_by([("first", "ascending"), ("second", "ascending")])
    linked = np.isin(classes, np.concatenate([low, high]))
    columns = {
        "group": group,
        "copies": _shared(group),
        f"class_{hash}": classes,
        f"similar_{hash}": (_shared(classes) | linked) & (classes >= 0),
    }
    whole = pa.table({**{name: images[name] for name in IMAGES.names if name in images.column_names}, **columns})
    whole = _first_columns(whole, {n: images[n] for n in images.column_names if n not in columns}, IMAGES).take(
        pa.array(order)
    )
    pair_order = np.lexsort((np.arange(len(image_of)), row[image_of]))
    pair_row = np.empty(len(pair_order), dtype=np.int64)
    pair_row[pair_order] = np.arange(len(pair_order))
    listed = pairs.set_column(pairs.schema.get_field_index("image"), "image", pa.array(row[image_of]))
    listed = _first_columns(pa.table({}), {n: listed[n] for n in listed.column_names}, PAIRS).take(pa.array(pair_order))
    text_rows = pair_row[texts["pair"].to_numpy().astype(np.int64)]
    for range in ranges:
        mine = whole.slice(range.first_image, range.images)
        _write(folder / file_of("images", range.number), mine)
        own = listed.slice(range.first_pair, range.pairs)
        local = pa.array(own["image"].to_numpy() - range.first_image, pa.int32())
        _write(folder / file_of("pairs", range.number), own.set_column(1, "image", local))
        ends = np.searchsorted(edges["first"].to_numpy(), [range.first_image, range.first_image + range.images])
        _write(folder / file_of(f"near-{hash}", range.number), edges.slice(ends[0], ends[1] - ends[0]))
        here = np.flatnonzero((text_rows >= range.first_pair) & (text_rows < range.first_pair + range.pairs))
        here = here[np.argsort(text_rows[here], kind="stable")]
        found = texts.take(pa.array(here)).set_column(0, "pair", pa.array(text_rows[here] - range.first_pair))
        _write(folder / file_of("benchmark-texts", range.number), found.cast(BENCHMARK_TEXTS))
    for name, table, label, schema in (
        ("exact", exact, group, BENCHMARK_EXACT),
        (hash, benchmark_near, classes, BENCHMARK_NEAR),
        ("crops", BENCHMARK_CROPS.empty_table() if crops is None else crops, group, BENCHMARK_CROPS),
    ):
        image = label[table["image"].to_numpy().astype(np.int64)]
        moved = table.set_column(0, "image", pa.array(image)).cast(schema)
        _write(folder / f"benchmark-{name}.arrow", moved.take(pa.array(np.argsort(image, kind="stable"))))
    (folder / RANGES).write_text(json.dumps(as_json(ranges)))


def _labels(
    group: NDArray[np.int64], near: pa.Table, row: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group and class of every image by their first new row; -1 where not decoded."""
    leader = np.arange(len(group))
    same = (near["distance"].to_numpy() == 0) & (near["difference"].to_numpy() == 0)
    leader[near["second"].to_numpy()[same]] = near["first"].to_numpy()[same]
    decoded = np.flatnonzero(group >= 0)
    labels = []
    for old in (group[decoded], leader[group[decoded]]):
        first = np.full(len(group), len(group), dtype=np.int64)
        np.minimum.at(first, old, row[decoded])
        label = np.full(len(group), -1, dtype=np.int64)
        label[decoded] = first[old]
        labels.append(label)
    return labels[0], labels[1]


def _shared(label: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which have the label of another."""
    _, place, count = np.unique(label, return_inverse=True, return_counts=True)
    return (count[place] > 1) & (label >= 0)


def _first_columns(made: pa.Table, others: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """The columns of the schema, in its types, then those made, then the others."""
    columns = {**{name: made[name] for name in made.column_names if name not in others}, **others}
    for field in schema:
        column = columns[field.name]
        if field.name.endswith("uid"):
            columns[field.name] = packed(column)
        elif field.name != "image":  # a row of everything, made local by range
            columns[field.name] = column.cast(field.type)
    ordered = [*schema.names, *(n for n in made.column_names if n not in schema.names)]
    return pa.table({name: columns[name] for name in dict.fromkeys([*ordered, *others])})


def _write(path: Path, table: pa.Table) -> None:
    whole = table.unify_dictionaries().combine_chunks()
    with pa.ipc.new_file(str(path), whole.schema) as out:
        out.write_table(whole)


def _pictures(path: Path) -> list[tuple[int, int]]:
    """A tar of small JPEGs, the same for every shard; where their bytes lie."""
    random = np.random.default_rng(0)
    extents: list[tuple[int, int]] = []
    with ShardWriter(path) as shard:
        for number in range(PICTURES):
            coarse = random.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            out = io.BytesIO()
            Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
            at = shard.add(f"{number:032x}", {"jpg": out.getvalue()})["jpg"]
            extents.append((at.offset, at.length))
    return extents


def seal(folder: Path, stage: str, fingerprint: str, config: Any, counts: Mapping[str, int]) -> None:
    """Write the manifest that makes a folder an artifact."""
    files = [
        {"name": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "sha256": _digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    manifest = {"stage": stage, "version": 1, "fingerprint": fingerprint, "config": config, "inputs": {}}
    manifest |= {"counts": dict(counts), "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _digest(path: Path) -> str:
    # Shards that are links to one another need hashing once only; their digest is not looked at.
    return file_sha256(path) if path.stat().st_nlink == 1 else hashlib.sha256(path.name.encode()).hexdigest()
