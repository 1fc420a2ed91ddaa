"""The tables of an `index` artifact: Arrow IPC files per range, uncompressed, made to be memory-mapped.

A range is a run of consecutive parts of the sources (`stages/base/ranges.py`). A *global* row of an image is its row
in its range's file plus the images of all earlier ranges, int64; a *local* row counts within the range's file.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from stages.base.uids import UID

_ROW, _LOCAL, _REAL = pa.int64(), pa.int32(), pa.float32()

#: First columns of `images-<range>.arrow`, one row per image listed: in order of the range's parts, within a part
#: sorted by `image_uid`. Behind them come two columns per hash searched (:func:`images_schema`), then all scalar
#: columns that any family of signals measured on images of any source, by their names: the same in all ranges; null
#: where an image was not fetched, did not decode, or its source was not measured so.
IMAGES = pa.schema(
    [
        ("image_uid", UID),
        ("source", pa.int16()),  # into sources.json
        ("status", pa.dictionary(pa.int16(), pa.string())),  # of the attempt: "success" or a reason
        ("host", pa.dictionary(pa.int32(), pa.string())),  # null for local files and private sources
        ("shard", pa.int32()),  # number of the raw shard, of input `raw[source]`; null without success, as the next two
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("decoded", pa.bool_()),  # null where nothing was fetched
        ("group", _ROW),  # global row of the first with the same decoded pixels (itself, if unique); -1: not decoded
        ("copies", pa.bool_()),  # whether another image has the same pixels
    ]
)


def images_schema(hashes: Iterable[str]) -> pa.Schema:
    """First columns of `images-<range>.arrow` of an index that was searched by these hashes.

    Pictures with equal hash *and* equal thumbnail form a *class*, which any rule on hashes and thumbnails treats as
    one; listing every pair of thousands of equal placeholders would be quadratic. `class_<hash>` is the global row of
    the first picture of the class of this image's group (-1 where not decoded), and `similar_<hash>` says whether
    another image is of the same class, or the class has a row in `near-<hash>`.
    """
    columns = [*IMAGES]
    for name in hashes:
        columns += [pa.field(f"class_{name}", _ROW), pa.field(f"similar_{name}", pa.bool_())]
    return pa.schema(columns)


#: First columns of `pairs-<range>.arrow`, one row per pair listed: in order of the range's parts, within a part sorted
#: by (image, uid). Behind them come all scalar columns that any family of signals measured on pairs of any source, the
#: same in all ranges; null where the image was not fetched.
PAIRS = pa.schema(
    [
        ("uid", UID),
        ("image", _LOCAL),  # local row of the range's images
        ("source", pa.int16()),
        ("measured", pa.bool_()),  # whether the pair has a row of signals
    ]
)

#: `near-<hash>-<range>.arrow`: pairs of classes whose hashes are at most the configured radius apart, each named by its
#: first picture; `first` lies in the range. Holds for all members of both classes. Sorted by (first, second).
NEAR = pa.schema(
    [
        ("first", _ROW),  # global row
        ("second", _ROW),  # global row, larger
        ("distance", pa.int16()),  # bits
        ("difference", _REAL),  # of the thumbnails: mean absolute, in grey levels
        ("relative_difference", _REAL),  # after one change of brightness is undone, in units of contrast; may be inf
    ]
)

#: `benchmark-exact.arrow`, one file: pictures with the pixels of a benchmark's image. Sorted by all columns.
BENCHMARK_EXACT = pa.schema(
    [
        ("image", _ROW),  # global row that leads its group
        ("benchmark", pa.dictionary(pa.int16(), pa.string())),
        ("file", pa.string()),
    ]
)

#: `benchmark-<hash>.arrow`, one file: classes within the radius of a benchmark's image, each named by its first
#: picture. Sorted by (image, benchmark, file).
BENCHMARK_NEAR = pa.schema([*BENCHMARK_EXACT, *list(NEAR)[2:]])

#: `benchmark-crops.arrow`, one file, of an index that looked for crops: pictures that are a crop of a benchmark's image
#: or it of them, mirrored, turned or bordered too. Only where one of the correlations reaches
#: `stages.index.crops.LEAST`. Sorted by (image, benchmark, file).
BENCHMARK_CROPS = pa.schema(
    [
        *BENCHMARK_EXACT,
        ("distance", pa.int16()),  # bits, of the hashes of the windows that are nearest
        ("correlation", _REAL),  # of the low frequencies, after one was laid over the other
        ("uncovered", _REAL),  # the same where nothing seems to be laid over the picture
    ]
)

#: `benchmark-texts-<range>.arrow`: pairs whose caption shares n-grams with a benchmark's texts. Sorted by
#: (pair, benchmark).
BENCHMARK_TEXTS = pa.schema(
    [
        ("pair", _LOCAL),  # local row of the range's pairs
        ("benchmark", pa.dictionary(pa.int16(), pa.string())),
        ("overlap", _REAL),  # share of the caption's n-grams that the benchmark has, above 0
    ]
)


def file_of(table: str, range: int) -> str:
    """Name of a range's file: `file_of("near-phash", 7)` is `near-phash-00007.arrow`."""
    return f"{table}-{range:05d}.arrow"
