"""The tables a selection works on, read from the artifacts of all sources: rules run over them with Ray Data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifact import Artifact
from stages.contract import Inputs, UserError
from stages.imagehash import THUMBNAIL_BYTES
from stages.select.config import Rules
from stages.select.rules import Check, first_failure, image_checks, pair_checks

_IMAGE_COLUMNS = pa.schema(
    [
        ("image_uid", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("aspect_ratio", pa.float64()),
        ("bytes", pa.int64()),
        ("pixel_sha256", pa.string()),
        ("phash", pa.string()),
        ("phash_rgb", pa.string()),
        ("thumbnail", pa.binary(THUMBNAIL_BYTES)),
        ("failed", pa.int8()),
    ]
)
_PAIR_COLUMNS = pa.schema(
    [("uid", pa.string()), ("words", pa.int32()), ("language", pa.string()), ("failed", pa.int8())]
)


@dataclass(frozen=True)
class Tables:
    """Everything known of the pairs before any is dropped."""

    pairs: pa.Table
    """Every pair listed, sorted by `uid`: `uid`, `image_uid`, `source` (index into `sources`, int16)."""
    attempts: pa.Table
    """Every image listed: `image_uid`, `status`, `offset`, `length`, `source` (int16), `shard` (the raw tar's name)."""
    images: pa.Table
    """Every image fetched, sorted by `image_uid`; `failed` is a position in `image_checks` or -1."""
    captions: pa.Table
    """Every pair whose image was fetched, sorted by `uid`; `failed` is a position in `pair_checks` or -1."""
    sources: list[str]
    """Names of the sources, in the order of the inputs."""
    image_checks: list[Check]
    pair_checks: list[Check]


def load(inputs: Inputs, rules: Rules) -> Tables:
    """Read all sources. Raises UserError when two inputs carry one source or a pair is listed twice."""
    pairs, names = _pairs(inputs["pairs"])
    on_images, on_pairs = image_checks(rules), pair_checks(rules)
    signals = inputs["signals"]
    return Tables(
        pairs=pairs,
        attempts=_attempts(inputs["raw"]),
        images=_checked(signals, "images-*.parquet", _IMAGE_COLUMNS, on_images, "image_uid"),
        captions=_checked(signals, "pairs-*.parquet", _PAIR_COLUMNS, on_pairs, "uid"),
        sources=names,
        image_checks=on_images,
        pair_checks=on_pairs,
    )


def _read(artifact: Artifact, name: str, columns: list[str]) -> pa.Table:
    with artifact.open(name) as file:
        return pq.read_table(file, columns=columns)


def _numbered(table: pa.Table, source: int) -> pa.Table:
    return table.append_column("source", pa.repeat(pa.scalar(source, pa.int16()), table.num_rows))


def _pairs(artifacts: Sequence[Artifact]) -> tuple[pa.Table, list[str]]:
    parts, names = [], []
    for number, artifact in enumerate(artifacts):
        names.append(_source_name(artifact, number))
        for file in artifact.names("pairs-*.parquet"):
            parts.append(_numbered(_read(artifact, file, ["uid", "image_uid"]), number))
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"select: two inputs are source {twice[0]}; name each source once in `source`")
    empty = pa.schema([("uid", pa.string()), ("image_uid", pa.string()), ("source", pa.int16())])
    table = pa.concat_tables([part.cast(empty) for part in parts] or [empty.empty_table()])
    return table.sort_by("uid").combine_chunks(), names


def _source_name(artifact: Artifact, number: int) -> str:
    for file in artifact.names("pairs-*.parquet"):
        column = _read(artifact, file, ["source"])["source"]
        if len(column):
            return str(column[0].as_py())
    # A source without a single pair has no row that says its name.
    config = artifact.manifest.get("config", {})
    return str(config.get("name") or f"source {number}")


def _attempts(artifacts: Sequence[Artifact]) -> pa.Table:
    columns = ["image_uid", "status", "offset", "length"]
    schema = pa.schema(
        [
            ("image_uid", pa.string()),
            ("status", pa.string()),
            ("offset", pa.int64()),
            ("length", pa.int64()),
            ("source", pa.int16()),
            ("shard", pa.string()),
        ]
    )
    parts = []
    for number, artifact in enumerate(artifacts):
        for file in artifact.names("attempts-*.parquet"):
            part = _numbered(_read(artifact, file, columns), number)
            shard = file.replace("attempts-", "raw-").replace(".parquet", ".tar")
            parts.append(part.append_column("shard", pa.repeat(shard, part.num_rows)).cast(schema))
    return pa.concat_tables(parts or [schema.empty_table()]).combine_chunks()


def _checked(artifacts: Sequence[Artifact], pattern: str, schema: pa.Schema, checks: list[Check], key: str) -> pa.Table:
    """The files of all artifacts as one table with the verdict of the rules, sorted by `key`."""
    import ray

    urls = [f"{artifact.url}/{name}" for artifact in artifacts for name in artifact.names(pattern)]
    if not urls:
        return schema.empty_table()
    keep = [name for name in schema.names if name != "failed"]
    needed = list(dict.fromkeys([*keep, *(column for check in checks for column in check.columns)]))
    rules = partial(first_failure, checks=checks, keep=keep)
    measured = ray.data.read_parquet(urls).select_columns(needed)
    checked = measured.map_batches(rules, batch_format="pyarrow", batch_size=None)
    parts = [part for part in ray.get(checked.to_arrow_refs()) if part.num_rows]
    table = pa.concat_tables([part.cast(schema) for part in parts] or [schema.empty_table()])
    return table.sort_by(key).combine_chunks()
