"""Gathers what shards are written from: every kept pair with its text and the place of its image, in sample order.

A task per range of the verdicts joins its pairs with the files of its own parts and leaves them in an exchange; a task
per bucket of the order sorts what falls into it. No process holds more than a range or a bucket, and what is finished
is not made again by a run that resumes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, UserError
from stages.base.exchange import Exchange, bucket_of
from stages.base.ranges import Range
from stages.base.splitmix import mixed
from stages.base.tasks import done, tasks_for
from stages.base.uids import UID, as_hex, leading, packed, trailing
from stages.base.verdicts import read_verdicts, verdict_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Kept pairs per bucket, on average: some 200 MB of captions and addresses.
ROWS_PER_BUCKET = 400_000

_BATCH = 1 << 16
_TEXT = pa.large_string()  # a range's captions may be more than the 2 GiB that 32-bit offsets reach
_ATTEMPT = {
    "width": pa.int32(),
    "height": pa.int32(),
    "sha256": _TEXT,
    "source_sha256": _TEXT,
    "ext": _TEXT,
    "offset": pa.int64(),
    "length": pa.int64(),
}
_TEXTS = ("caption", "url", "license")
#: Columns of the gathered samples: those of verdicts, pairs and attempts under their names, and `raw` / `shard`, the
#: number of the `raw` input and the id of the raw shard in it.
SAMPLES = pa.schema(
    [
        ("uid", UID),
        ("image_uid", UID),
        ("source", _TEXT),
        ("repeats", pa.int16()),
        *((name, _TEXT) for name in _TEXTS),
        *_ATTEMPT.items(),
        ("raw", pa.int32()),
        ("shard", _TEXT),
    ]
)


def order_keys(uids: pa.Array | pa.ChunkedArray, seed: int) -> NDArray[np.uint64]:
    """The keys by whose order samples lie in the shards, uint64 [n]; equal keys in order of the uid.

    A key is a hash of a uid's leading 64 bits with the seed. So the order
    of two samples does not depend on the rest of the data, and dropping some leaves the others in their order.
    """
    return mixed(leading(uids) ^ mixed(np.array([seed], np.uint64)))


@dataclass(frozen=True)
class OrderedSamples:
    """All samples in a folder, bucket after bucket; in each they are sorted."""

    folder: Path
    buckets: int

    def lengths(self) -> Iterator[NDArray[np.int64]]:
        """Bytes of the images of each bucket, int64 [samples of the bucket]."""
        for bucket in range(self.buckets):
            yield np.load(self._lengths(bucket))

    def rows(self, places: Sequence[Sequence[int]]) -> Iterator[dict[str, Any]]:
        """The samples at places (bucket, start, stop), one by one, with uids in hex digits; memory-mapped."""
        for bucket, start, stop in places:
            with pa.memory_map(str(self._table(bucket))) as mapped:
                table = pa.ipc.open_file(mapped).read_all().slice(start, stop - start)
            for batch in table.to_batches(max_chunksize=1024):
                for name in ("uid", "image_uid"):
                    field = batch.schema.get_field_index(name)
                    batch = batch.set_column(field, name, as_hex(batch.column(field)))
                yield from batch.to_pylist()

    def missing(self) -> list[int]:
        """The buckets that are not finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        present = set(os.listdir(self.folder))
        made = ((self._table(bucket).name, self._lengths(bucket).name) for bucket in range(self.buckets))
        return [bucket for bucket, names in enumerate(made) if not present.issuperset(names)]

    def write(self, bucket: int, table: pa.Table) -> None:
        """Write a bucket's samples; its lengths last."""
        for path, write in ((self._table(bucket), _write_table), (self._lengths(bucket), _write_lengths)):
            partial = path.with_name(f"{path.name}.{os.getpid()}.part")
            write(partial, table)
            os.replace(partial, path)

    def _table(self, bucket: int) -> Path:
        return self.folder / f"samples-{bucket:05d}.arrow"

    def _lengths(self, bucket: int) -> Path:
        return self.folder / f"lengths-{bucket:05d}.npy"


def _write_table(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=_BATCH)


def _write_lengths(path: Path, table: pa.Table) -> None:
    with open(path, "wb") as out:
        np.save(out, table["length"].to_numpy())


def samples_of(verdicts: Artifact, scratch: str, rows_per_bucket: int | None = None) -> OrderedSamples:
    """Where the samples are, or will be: so many buckets as there are kept pairs for."""
    kept = verdicts.counts.get("kept")
    if kept is None:
        kept = sum(each.pairs for each in verdict_ranges(verdicts))
    buckets = max(1, -(-kept // (rows_per_bucket or ROWS_PER_BUCKET)))
    return OrderedSamples(Path(scratch) / f"samples-{buckets}", buckets)


def gather(inputs: Inputs, seed: int, samples: OrderedSamples) -> None:
    """Make all buckets that are missing. Raises UserError if a kept pair's text or image is in none of the inputs."""
    missing = samples.missing()
    exchange = Exchange(samples.folder / "exchange", samples.buckets)
    if missing:
        ranges = verdict_ranges(inputs["verdicts"][0])
        # Both files: a folder may be what a removal left that was stopped.
        written = {path.stem for path in Path(exchange.folder).glob("*.npy") if path.with_suffix(".arrow").exists()}
        todo = [each for each in ranges if f"{each.number:07d}" not in written]
        tasks = tasks_for(len(todo))
        held = tasks.share(dict(inputs))
        done(tasks.map(_gather_range, ((held, each, seed, exchange) for each in todo)))
        done(tasks_for(len(missing)).map(_sort_bucket, ((exchange, bucket, seed, samples) for bucket in missing)))
    shutil.rmtree(exchange.folder, ignore_errors=True)


def _gather_range(inputs: Inputs, of: Range, seed: int, exchange: Exchange) -> None:
    rows = joined(inputs, of)
    exchange.write(of.number, rows, bucket_of(order_keys(rows["uid"], seed), exchange.buckets))


def _sort_bucket(exchange: Exchange, bucket: int, seed: int, samples: OrderedSamples) -> None:
    rows = exchange.read(bucket)
    order = np.lexsort((trailing(rows["uid"]), order_keys(rows["uid"], seed)))
    samples.write(bucket, rows.take(pa.array(order)))


def joined(inputs: Inputs, of: Range) -> pa.Table:
    """The kept pairs of a range with their texts and images, schema :data:`SAMPLES`, in the order of its parts.

    Raises UserError for a pair whose text or image is not in the files of these parts.
    """
    kept = _kept(inputs["verdicts"][0], of)
    listed = [_uids(inputs["pairs"][source], part) for source, part in of.parts]
    starts = np.cumsum([0, *map(len, listed)])
    at = _places(kept, "uid", pa.concat_arrays([pa.array([], UID), *listed]))
    order = np.argsort(at)
    kept, at = kept.take(pa.array(order)), at[order]
    bounds = np.searchsorted(at, starts)
    pieces = [SAMPLES.empty_table()]
    for number, (source, part) in enumerate(of.parts):
        first, last = int(bounds[number]), int(bounds[number + 1])
        if first < last:
            mine = kept.slice(first, last - first)
            texts = _texts(inputs["pairs"][source], part).take(pa.array(at[first:last] - starts[number]))
            uids, images = _images(inputs["raw"][source], part)
            images = images.take(pa.array(_places(mine, "image_uid", uids)))
            raw, shard = (
                pa.repeat(pa.scalar(source, pa.int32()), len(mine)),
                pa.repeat(pa.scalar(part, _TEXT), len(mine)),
            )
            columns = [*mine.columns, *texts.columns, *images.columns, raw, shard]
            pieces.append(pa.table(columns, schema=SAMPLES))
    return pa.concat_tables(pieces)


def _kept(verdicts: Artifact, of: Range) -> pa.Table:
    table = read_verdicts(verdicts, of, ("uid", "image_uid", "source", "keep", "repeats"))
    table = table.filter(table["keep"])
    columns = [packed(table["uid"]), packed(table["image_uid"]), table["source"].cast(_TEXT), table["repeats"]]
    return pa.table([*columns[:3], columns[3].cast(pa.int16())], names=SAMPLES.names[:4])


def _uids(pairs: Artifact, part: str) -> pa.Array:
    with pairs.open(f"pairs-{part}.parquet") as file:
        return packed(pq.read_table(file, columns=["uid"])["uid"])


def _texts(pairs: Artifact, part: str) -> pa.Table:
    with pairs.open(f"pairs-{part}.parquet") as file:
        table = pq.read_table(file, columns=list(_TEXTS))
    return table.select(_TEXTS).cast(pa.schema([(name, _TEXT) for name in _TEXTS]))


def _images(raw: Artifact, part: str) -> tuple[pa.Array, pa.Table]:
    """uids of a part's fetched images, and where they are."""
    with raw.open(f"attempts-{part}.parquet") as file:
        table = pq.read_table(file, columns=["image_uid", "status", *_ATTEMPT])
    table = table.filter(pc.equal(table["status"], "success"))
    return packed(table["image_uid"]), table.select(list(_ATTEMPT)).cast(pa.schema(list(_ATTEMPT.items())))


def _places(kept: pa.Table, key: str, among: pa.Array) -> NDArray[np.int64]:
    """The place of each kept pair's key, int64 [kept]."""
    places = pc.index_in(kept[key], value_set=among)
    if places.null_count:
        lost = as_hex(kept["uid"].filter(pc.is_null(places)))
        raise UserError(
            f"shard: verdicts keep pair {pc.min(lost).as_py()}, but its image or text is in none of the inputs; run "
            "select again"
        )
    return np.asarray(places.to_numpy(), np.int64)
