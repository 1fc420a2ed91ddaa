"""The tables of an `index` artifact: Arrow IPC files, uncompressed, made to be memory-mapped."""

from __future__ import annotations

import pyarrow as pa

_INT, _REAL = pa.int32(), pa.float32()

#: First columns of `images.arrow`, one row per image listed, sorted by `image_uid`. Behind them come all scalar
#: columns that any family of signals measured on images, by their names; null where an image was not fetched, did not
#: decode, or its source was not measured so.
IMAGES = pa.schema(
    [
        ("image_uid", pa.string()),
        ("source", pa.int16()),  # into sources.json
        ("status", pa.dictionary(pa.int16(), pa.string())),  # of the attempt: "success" or a reason
        ("host", pa.dictionary(_INT, pa.string())),  # null for local files and private sources
        ("shard", _INT),  # number of the raw shard, of input `raw[source]`; null without success, as the next two
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("decoded", pa.bool_()),  # null where nothing was fetched
        ("group", _INT),  # the first row with the same decoded pixels (itself, if unique); -1 where not decoded
    ]
)

#: First columns of `pairs.arrow`, one row per pair listed, sorted by `uid`. Behind them come all scalar columns that
#: any family of signals measured on pairs; null where the image was not fetched.
PAIRS = pa.schema(
    [
        ("uid", pa.string()),
        ("image", _INT),  # row of images.arrow
        ("source", pa.int16()),
        ("measured", pa.bool_()),  # whether the pair has a row of signals
    ]
)

#: `near-<hash>.arrow`: pairs of pictures (rows of images.arrow that lead their group, first < second) whose hashes are
#: at most the configured radius apart. Sorted by (first, second).
#:
#: Pictures with equal hash *and* equal thumbnail form a *class*, which any rule on hashes and thumbnails treats as one;
#: listing every pair of thousands of equal placeholders would be quadratic. So a class gives a star: one row (first
#: member, other member) with distance 0 and difference 0 per other member, and the first member alone carries the rows
#: to pictures of other classes, which hold for all members. No row between two classes has distance 0 and difference 0,
#: so the two kinds can be told apart by the table alone; `stages.index.reader.Index.classes` does it.
NEAR = pa.schema(
    [
        ("first", _INT),
        ("second", _INT),
        ("distance", pa.int16()),  # bits
        ("difference", _REAL),  # of the thumbnails: mean absolute, in grey levels
        ("relative_difference", _REAL),  # after one change of brightness is undone, in units of contrast; may be inf
    ]
)

#: `benchmark-exact.arrow`: pictures with the pixels of a benchmark's image. Sorted by all columns.
BENCHMARK_EXACT = pa.schema(
    [
        ("image", _INT),  # row of images.arrow that leads its group
        ("benchmark", pa.dictionary(pa.int16(), pa.string())),
        ("file", pa.string()),
    ]
)

#: `benchmark-<hash>.arrow`: pictures within the radius of a benchmark's image; of a class (above) its first member
#: stands for all. Sorted by (image, benchmark, file).
BENCHMARK_NEAR = pa.schema([*BENCHMARK_EXACT, *list(NEAR)[2:]])

#: `benchmark-texts.arrow`: pairs whose caption shares n-grams with a benchmark's texts. Sorted by (pair, benchmark).
BENCHMARK_TEXTS = pa.schema(
    [
        ("pair", _INT),  # row of pairs.arrow
        ("benchmark", pa.dictionary(pa.int16(), pa.string())),
        ("overlap", _REAL),  # share of the caption's n-grams that the benchmark has, above 0
    ]
)
