"""Synthetic lists of any length for `benchmarks/scale.py`, and the downloads and signals that belong to them.

Everything about a row is computed from its number, so each part is written by itself, in any order, in the memory of a
part, and copies of one picture agree however far apart they lie. The tables are in the formats of their stages; the
raw shards are one tar of small pictures under many names.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from stages.base.artifact import MANIFEST, RUN_RECORD, file_sha256
from stages.download.attempts import attempts_schema
from stages.shard.writer import ShardWriter
from stages.signals import registry, tables
from stages.signals.config import SignalsConfig

Numbers = NDArray[np.uint64]

#: Different pictures in a raw shard.
PICTURES = 256
_ROWS_PER_LIST, _ROWS_PER_GROUP = 1_000_000, 100_000
_URL = b"https://images.host00000.example/catalogue/pictures/large/000000000000.jpg"
_HOST_AT, _NUMBER_AT = _URL.index(b"00000"), _URL.rindex(b"000000000000")
_HOSTS = 5000
_MOST_WORDS = 24
_STATUSES = ("http_404", "timeout", "dns", "opt_out")
_DIGITS = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
#: Pictures that thousands of hosts send in place of what was there.
_PLACEHOLDERS = 20
#: Values in the order of size, of which 16 bits choose one.
_QUANTILES = 1 << 16


def mix(numbers: Any, salt: int) -> Numbers:
    """64 bits per number: SplitMix64's finaliser (Steele et al. 2014)."""
    x = np.asarray(numbers).astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(numbers: Any, salt: int) -> NDArray[np.float64]:
    """A number in [0, 1) per number."""
    return (mix(numbers, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Web:
    """`rows` rows of LAION-like lists.

    Of all rows 1% repeat the one before and 1% list its URL with another text. Of the images 12% cannot be fetched and
    0.2% not be decoded; 2% have the pixels of another image anywhere, 6% are near copies of one (a third of these with
    a thumbnail that no rule takes for the same), 0.7% are one of 20 placeholders.
    """

    def __init__(self, rows: int, sources: Mapping[str, float], signals: SignalsConfig) -> None:
        """`sources`: names, and the share of the rows that each lists."""
        self.rows = rows
        ends = np.round(np.cumsum(list(sources.values())) * rows).astype(int).tolist()
        self.ranges = dict(zip(sources, zip([0, *ends[:-1]], ends, strict=True), strict=True))
        self.signals = signals
        random = np.random.default_rng(0)
        syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
        draws = random.integers(0, len(syllables), (40_000, 4))
        words = ["".join(syllables[i] for i in row[: 1 + n % 4]) for n, row in enumerate(draws.tolist())]
        self.words = pa.array(sorted(set(words)), pa.string())
        self.frequency = np.sort(random.zipf(1.3, _QUANTILES) % len(self.words)).astype(np.int32)
        self.lengths = np.clip(np.sort(random.poisson(10, _QUANTILES)), 1, _MOST_WORDS).astype(np.int32)
        self.sides = np.sort(np.exp(random.normal(6.2, 0.6, _QUANTILES)) + 16).astype(np.int32)
        self.normal = np.sort(random.normal(0, 1, _QUANTILES)).astype(np.float32)
        self.small = np.sort(random.beta(0.3, 6, _QUANTILES)).astype(np.float32)

    # -- the lists -----------------------------------------------------------------------------------------------
    def write_lists(self, folder: Path, workers: int) -> None:
        """`<source>/part-NNNNN.parquet`, with the columns of LAION-2B-en."""
        calls = []
        for source, (begin, end) in self.ranges.items():
            (folder / source).mkdir(parents=True, exist_ok=True)
            for number, start in enumerate(range(begin, end, _ROWS_PER_LIST)):
                calls.append((folder / source / f"part-{number:05d}.parquet", start, min(end, start + _ROWS_PER_LIST)))
        _each(self._write_list, calls, workers)

    def _write_list(self, path: Path, begin: int, end: int) -> None:
        writer = None
        for start in range(begin, end, _ROWS_PER_GROUP):
            table = self._listed(np.arange(start, min(end, start + _ROWS_PER_GROUP), dtype=np.uint64))
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
        if writer:
            writer.close()

    def _listed(self, row: Numbers) -> pa.Table:
        kind = mix(row, 9) % np.uint64(100)
        before = np.maximum(row, np.uint64(1)) - np.uint64(1)
        image = np.where(kind < 2, before, row)
        text = np.where(kind == 1, before, row)
        width, height = self._size(image)
        return pa.table(
            {
                "URL": urls(image),
                "TEXT": self._captions(text),
                "WIDTH": width,
                "HEIGHT": height,
                "similarity": 0.29 + 0.04 * self._quantile(self.normal, text, 32).astype(np.float64),
                "hash": mix(text, 33).view(np.int64),
                "punsafe": self._quantile(self.small, image, 34),
                "pwatermark": self._quantile(self.small, image, 35),
            }
        )

    def _captions(self, text: Numbers) -> pa.Array:
        lengths = self._quantile(self.lengths, text, 40)
        draws = np.stack([mix(text, 41 + n) for n in range(_MOST_WORDS // 4)], axis=1).view(np.uint16)
        words = self.frequency[draws][np.arange(_MOST_WORDS) < lengths[:, None]]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), self.words.take(pa.array(words))), " ")

    def _quantile(self, values: NDArray[Any], numbers: Numbers, salt: int) -> NDArray[Any]:
        return values[(mix(numbers, salt) >> np.uint64(48)).astype(np.int64)]

    # -- what was fetched and measured ---------------------------------------------------------------------------
    def write_measured(self, pairs: Path, raw: Path, signals: Path, workers: int) -> tuple[Counter[str], Counter[str]]:
        """Files of the `download` and the `signals` artifact of one source from its `ingest` artifact; their counts."""
        extents = _pictures(raw / "raw-00000.tar")
        numbers = [file.stem.removeprefix("pairs-") for file in sorted(pairs.glob("pairs-*.parquet"))]
        calls = [(pairs, raw, signals, number, extents) for number in numbers]
        fetched: Counter[str] = Counter()
        measured: Counter[str] = Counter()
        for attempts, rows in _each(self._write_part, calls, workers):
            fetched.update(attempts)
            measured.update(rows)
        return fetched, measured

    def _write_part(
        self, pairs: Path, raw: Path, signals: Path, number: str, extents: NDArray[np.int64]
    ) -> tuple[dict[str, int], dict[str, int]]:
        listed = pq.read_table(
            pairs / f"pairs-{number}.parquet", columns=["uid", "image_uid", "source", "url", "caption"]
        )
        # All pairs of an image lie together: ingest sorts by image.
        uid = listed["image_uid"].combine_chunks()
        first = np.concatenate([[True], pc.not_equal(uid[1:], uid[:-1]).to_numpy(zero_copy_only=False)])
        image_of = np.cumsum(first) - 1
        images = listed.filter(pa.array(first)).select(["image_uid", "source", "url"])
        row = pc.utf8_slice_codeunits(images["url"], -16, -4).cast(pa.int64()).to_numpy().astype(np.uint64)
        fetched = uniform(row, 1) >= 0.12
        attempts = self._attempts(images, row, fetched, extents)
        pq.write_table(attempts, raw / f"attempts-{number}.parquet", compression="zstd")
        tar = raw / f"raw-{number}.tar"
        if not tar.exists():
            tar.hardlink_to(raw / "raw-00000.tar")
        kept = attempts.filter(pa.array(fetched))
        decoded = uniform(row[fetched], 2) >= 0.002
        measured = self._measured_images(kept, row[fetched], decoded)
        tables.write(measured, signals / f"images-{number}.parquet")
        texts = listed.filter(pa.array(fetched[image_of])).sort_by("uid")
        tables.write(self._measured_pairs(texts), signals / f"pairs-{number}.parquet")
        statuses = Counter(attempts["status"].to_pylist())
        success = statuses.pop("success", 0)
        counts = {"images": len(row), "success": success, "bytes": pc.sum(kept["length"]).as_py() or 0}
        counts |= {f"status.{status}": n for status, n in statuses.items()}
        return counts, {"images": len(decoded), "undecodable": int((~decoded).sum()), "pairs": texts.num_rows}

    def _attempts(
        self, images: pa.Table, row: Numbers, fetched: NDArray[np.bool_], extents: NDArray[np.int64]
    ) -> pa.Table:
        extent = extents[(row % np.uint64(PICTURES)).astype(np.int64)]
        status = np.where(fetched, len(_STATUSES), (mix(row, 3) % np.uint64(len(_STATUSES))).astype(np.int64))
        digests = hexadecimal(_bytes(row, 50, 4))
        width, height = self._size(self._likeness(row)[3])
        columns = {
            "image_uid": images["image_uid"],
            "source": images["source"],
            "url": images["url"],
            "status": pa.array([*_STATUSES, "success"]).take(pa.array(status)),
            "error": pc.if_else(pa.array(fetched), pa.scalar(None, pa.string()), pa.scalar("the host does not answer")),
            "width": width,
            "height": height,
            "bytes": extent[:, 1],
            "format": pa.array(["JPEG"] * len(row)),
            "sha256": digests,
            "source_sha256": digests,
            "exif_orientation": np.ones(len(row), dtype=np.int8),
            "ext": pa.array(["jpg"] * len(row)),
            "offset": extent[:, 0],
            "length": extent[:, 1],
        }
        always = ("image_uid", "source", "url", "status", "error")
        arrays = []
        for field in attempts_schema():
            value = columns.get(field.name)
            value = pa.nulls(len(row), field.type) if value is None else _whole(value).cast(field.type)
            arrays.append(value if field.name in always else _where(value, fetched))
        return pa.table(arrays, schema=attempts_schema())

    def _measured_images(self, attempts: pa.Table, row: Numbers, decoded: NDArray[np.bool_]) -> pa.Table:
        base = attempts.select(["image_uid", "source", "bytes", "format", "sha256"])
        results = {}
        values = self._image_columns(row)
        for family in registry.build(self.signals):
            if family.table == "images":
                schema = tables.schema(family)
                columns = [self._column(values, field, row) for field in schema]
                results[family.name] = pa.table([_where(column, decoded) for column in columns], schema=schema)
        return tables.joined(base, [f for f in registry.build(self.signals) if f.table == "images"], results, "images")

    def _measured_pairs(self, listed: pa.Table) -> pa.Table:
        row = pc.utf8_slice_codeunits(listed["url"], -16, -4).cast(pa.int64()).to_numpy().astype(np.uint64)
        characters = pc.utf8_length(listed["caption"])
        everywhere = np.ones(len(row), dtype=bool)
        values = {
            "characters": characters,
            "words": pc.add(pc.count_substring(listed["caption"], " "), 1),
            "longest_word": np.minimum(characters.to_numpy(), 12),
            "has_url": ~everywhere,
            "language": pa.array(["en", "de", "fr", "es"]).take(
                pa.array(np.maximum(mix(row, 70) % np.uint64(16), 12) - 12)
            ),
            "language_score": 1 - self._quantile(self.small, row, 71) / 2,
            "similarity": 0.29 + 0.04 * self._quantile(self.normal, row, 32),
        }
        families = [family for family in registry.build(self.signals) if family.table == "pairs"]
        results = {}
        for family in families:
            schema = tables.schema(family)
            columns = [self._column(values, field, row) for field in schema]
            results[family.name] = pa.table(columns, schema=schema)
        return tables.joined(listed, families, results, "pairs")

    def _likeness(self, row: Numbers) -> tuple[Numbers, Numbers, NDArray[np.int64], Numbers]:
        """The row whose picture this row has, what that looks like, how it was changed (0 not, 1 slightly, 2 much),
        and whose pixels it has. All but the first follow from the first: equal pixels look the same."""
        copy = uniform(row, 4) < 0.02
        row = np.where(copy, mix(row, 5) % np.uint64(self.rows), row)
        chance = uniform(row, 4)
        placeholder = np.uint64(self.rows) + mix(row, 6) % np.uint64(_PLACEHOLDERS)
        near = (chance >= 0.02) & (chance < 0.08)
        held = (chance >= 0.08) & (chance < 0.087)
        look = np.select([near, held], [mix(row, 5) % np.uint64(self.rows), placeholder], row)
        pixels = np.where(held & (chance < 0.085), placeholder, row)
        return row, look, np.where(near, 1 + (chance >= 0.06), 0), pixels

    def _size(self, pixels: Numbers) -> tuple[NDArray[Any], NDArray[Any]]:
        width = self._quantile(self.sides, pixels, 30)
        height = np.maximum(16, width * np.exp(0.35 * self._quantile(self.normal, pixels, 31)))
        return width, height.astype(np.int32)

    def _image_columns(self, row: Numbers) -> dict[str, Any]:
        row, look, change, pixels = self._likeness(row)
        width, height = self._size(pixels)
        noise = _bytes(row, 80, 24).astype(np.int16)
        noise = np.select([change[:, None] == 1, change[:, None] == 2], [noise % 5 - 2, noise % 41 - 20], 0)
        thumbnail = np.clip(_bytes(look, 110, 24) + noise, 0, 255).astype(np.uint8)
        hashes = _bytes(look, 140, 5).view(np.uint64)
        for word in range(hashes.shape[1]):
            for salt in range(3):  # up to three bits each
                flip = np.uint64(1) << (mix(row, 150 + 3 * word + salt) % np.uint64(64))
                hashes[:, word] ^= np.where(change > 0, flip, np.uint64(0))
        digits = hashes.view(np.uint8)
        light = self._quantile(self.normal, pixels, 60)
        return {
            "width": width,
            "height": height,
            "aspect_ratio": np.maximum(width, height) / np.minimum(width, height),
            "brightness": 128 + 40 * light,
            "contrast": 55 + 15 * self._quantile(self.normal, pixels, 61),
            "entropy": 8 - np.abs(self._quantile(self.normal, pixels, 62)),
            "sharpness": np.exp(5 + 1.5 * self._quantile(self.normal, pixels, 63)),
            "pixel_sha256": hexadecimal(_bytes(pixels, 170, 4)),
            "phash": hexadecimal(digits[:, :8]),
            "phash_rgb": hexadecimal(digits[:, 8:32]),
            "phash_d4": hexadecimal(digits[:, 32:40]),
            "thumbnail": _binary(thumbnail),
            "patch": _binary(_bytes(look, 240, 32)),
            "faces": mix(pixels, 64) % np.uint64(3),
        }

    def _column(self, values: Mapping[str, Any], field: pa.Field, row: Numbers) -> Any:
        """A column by name, or any values of its type."""
        value, kind, salt = values.get(field.name), field.type, sum(field.name.encode())
        if value is not None:
            return _whole(value).cast(kind)
        if pa.types.is_floating(kind):
            return pa.array(self._quantile(self.small, row, salt)).cast(kind)
        if pa.types.is_integer(kind):
            return pa.array(mix(row, salt) % np.uint64(100)).cast(kind)
        if pa.types.is_list(kind) and pa.types.is_floating(kind.value_type):
            items = pa.array(255 * self._quantile(self.small, np.repeat(row, 3), salt)).cast(kind.value_type)
            return pa.ListArray.from_arrays(pa.array(np.arange(0, 3 * len(row) + 1, 3, dtype=np.int32)), items).cast(
                kind
            )
        return pa.nulls(len(row), kind)


def urls(numbers: Numbers) -> pa.Array:
    """The URL of each number, string."""
    text = np.tile(np.frombuffer(_URL, dtype=np.uint8), (len(numbers), 1))
    host = (_HOSTS * uniform(numbers, 7) ** 3).astype(np.uint64)
    for start, width, value in ((_HOST_AT, 5, host), (_NUMBER_AT, 12, numbers)):
        for place in range(width):
            digit = value // np.uint64(10 ** (width - 1 - place)) % np.uint64(10)
            text[:, start + place] = digit.astype(np.uint8) + ord("0")
    return _strings(text)


def hexadecimal(data: NDArray[np.uint8]) -> pa.Array:
    """Bytes [n, width] as strings of hex digits."""
    text = np.empty((len(data), 2 * data.shape[1]), dtype=np.uint8)
    text[:, 0::2], text[:, 1::2] = _DIGITS[data >> 4], _DIGITS[data & 15]
    return _strings(text)


def seal(folder: Path, identity: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """Write manifest and run record, which make a folder an artifact; `identity` as in `pipelines/runner.py`."""
    digests: dict[int, str] = {}  # raw shards are one file under many names
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (MANIFEST, RUN_RECORD, "_lock"):
            status = path.stat()
            if status.st_ino not in digests:
                digests[status.st_ino] = file_sha256(path)
            name = path.relative_to(folder).as_posix()
            files.append({"name": name, "size": status.st_size, "sha256": digests[status.st_ino]})
    started = {"started": "2026-01-01T00:00:00+00:00", "seconds": 0.0}
    (folder / RUN_RECORD).write_text(json.dumps(started))
    (folder / MANIFEST).write_text(json.dumps({**identity, "counts": dict(sorted(counts.items())), "files": files}))


def _bytes(numbers: Numbers, salt: int, words: int) -> NDArray[np.uint8]:
    """`words` times 8 bytes per number, [n, 8 * words]."""
    return np.stack([mix(numbers, salt + n) for n in range(words)], axis=1).view(np.uint8)


def _binary(data: NDArray[np.uint8]) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(data.shape[1]), len(data), [None, pa.py_buffer(data.tobytes())]
    )


def _strings(text: NDArray[np.uint8]) -> pa.Array:
    offsets = np.arange(0, text.size + 1, text.shape[1], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(text), [None, pa.py_buffer(offsets), pa.py_buffer(text.tobytes())])


def _whole(value: Any) -> pa.Array:
    if isinstance(value, pa.ChunkedArray):
        return value.combine_chunks()
    return value if isinstance(value, pa.Array) else pa.array(value)


def _where(column: pa.Array, there: NDArray[np.bool_]) -> pa.Array:
    """The column with nulls where nothing is there."""
    return column.take(pa.array(np.arange(len(there)), mask=~there))


def _each(function: Any, calls: list[tuple[Any, ...]], workers: int) -> list[Any]:
    if workers == 1 or len(calls) == 1:
        return [function(*call) for call in calls]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(function, *zip(*calls, strict=True), chunksize=4))


def _pictures(path: Path) -> NDArray[np.int64]:
    """A tar of small JPEGs; offset and length of each, int64 [PICTURES, 2]."""
    random = np.random.default_rng(0)
    extents = []
    with ShardWriter(path) as shard:
        for number in range(PICTURES):
            coarse = random.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            out = io.BytesIO()
            Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC).save(out, "JPEG", quality=80)
            at = shard.add(hashlib.sha256(bytes([number])).hexdigest()[:32], {"jpg": out.getvalue()})["jpg"]
            extents.append((at.offset, at.length))
    return np.array(extents, dtype=np.int64)
