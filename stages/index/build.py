"""The passes of the index over ranges and buckets, each a map of tasks; the driver sees counts and small tables."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, UserError
from stages.base.ranges import RangePart, bundled
from stages.base.tasks import Tasks, done
from stages.base.uids import bytes_of
from stages.index import groups
from stages.index.benchmarks import crops_of_benchmarks, exact_matches, near_to_benchmarks
from stages.index.config import IndexConfig
from stages.index.crops import HeldPatches
from stages.index.matches import Pictures
from stages.index.near import NearCopies
from stages.index.partition import Measured, SourceInputs, measured_columns, rows_of
from stages.index.tables import finish_range, join_range, write
from stages.index.texts import Phrases
from stages.index.work import IndexWork

_FOOTERS = 64  # parts whose rows one task counts


def planned(tasks: Tasks, inputs: Inputs, config: IndexConfig, folder: str) -> IndexWork:
    """The ranges and columns of a run. Raises UserError when two inputs carry one source, or a file is missing."""
    sources, parts = _sources(inputs, config)
    chunks = [parts[begin : begin + _FOOTERS] for begin in range(0, len(parts), _FOOTERS)]
    counted = [part for chunk in tasks.map(_counted, ((sources, chunk) for chunk in chunks)) for part in chunk]
    first = dict(reversed(parts))
    columns = [measured_columns(sources[source], digits) for source, digits in sorted(first.items())]
    measured = Measured(
        pa.unify_schemas([it.images for it in columns], promote_options="permissive"),
        pa.unify_schemas([it.pairs for it in columns], promote_options="permissive"),
    )
    ranges = bundled(counted, config.range_rows)
    return IndexWork(folder, tuple(ranges), tuple(sources), measured, tuple(config.search_radius), config.crops)


def build(
    tasks: Tasks, work: IndexWork, config: IndexConfig, held: pa.Table, phrases: Phrases
) -> tuple[Mapping[str, pa.Table], Counter[str]]:
    """Write the files of all ranges below `made` in the folder of the work; returns the tables of matches in
    benchmarks by file name, and the artifact's counts.

    `held` and `phrases` are the benchmarks' images and texts. Raises UserError where the inputs disagree, and for more
    near copies than `index.max_near`.
    """
    os.makedirs(os.path.join(work.folder, "made"), exist_ok=True)
    told, numbers = tasks.share(work), range(len(work.ranges))
    buckets = range(max(1, len(work.ranges)))
    counts: Counter[str] = Counter()
    texts, pixels = tasks.share(phrases), tasks.share(bytes_of(held["pixel_sha256"]))
    joined = list(tasks.map(join_range, ((told, texts, pixels, number) for number in numbers)))
    counts["images"] = sum(it.images for it in work.ranges)
    counts["pairs"] = sum(it.pairs for it in work.ranges)
    counts["benchmark.texts"] = sum(it.texts for it in joined)
    done(tasks.map(groups.settle_pixels, ((told, bucket) for bucket in buckets)))
    counts["pictures"] = sum(tasks.map(groups.group_range, ((told, number) for number in numbers)))
    tables = {"benchmark-exact.arrow": exact_matches([(it.rows, it.held) for it in joined], held)}
    settled = {}
    for name in work.hashes:
        settled[name] = list(tasks.map(groups.settle_classes, ((told, name, bucket) for bucket in buckets)))
    radius = list(config.search_radius.values())
    base = tasks.share([Pictures.of(held, name) for name in work.hashes])
    calls = ((told, radius, base, config.max_near, number) for number in numbers)
    matches = list(tasks.map(groups.classes_of_range, calls))
    for place, name in enumerate(work.hashes):
        found = near_to_benchmarks([it[place] for it in matches], held, config.max_near)
        tables[f"benchmark-{name}.arrow"] = found
        NearCopies(work, name).search(tasks, settled[name], radius[place], config.max_near)
    if work.crops:
        patches = tasks.share(HeldPatches.of(bytes_of(held["patch"])))
        crops = tasks.map(groups.crops_of_range, ((told, patches, config.max_near, number) for number in numbers))
        tables["benchmark-crops.arrow"] = crops_of_benchmarks(list(crops), held, config.max_near)
    for finished in tasks.map(finish_range, ((told, number) for number in numbers)):
        counts.update(finished)
    for name in work.hashes:
        counts[f"near.{name}"] += 0  # also where nothing is near
    for file, table in tables.items():
        counts[file.removesuffix(".arrow").replace("-", ".", 1)] = table.num_rows
    return tables, counts


def move(work: IndexWork, tables: Mapping[str, pa.Table], out: Path) -> None:
    """Bring what :func:`build` made to where it belongs to the artifact."""
    made = Path(work.folder, "made")
    for file in sorted(made.iterdir()):
        shutil.move(file, out / file.name)
    for name, table in tables.items():
        write(table, out / name)


def _sources(inputs: Inputs, config: IndexConfig) -> tuple[list[SourceInputs], list[tuple[int, str]]]:
    """The sources by number, and their parts in order."""
    sources: list[SourceInputs] = []
    parts: list[tuple[int, str]] = []
    for number, (pairs, raw, signals) in enumerate(zip(*(inputs[r] for r in ("pairs", "raw", "signals")), strict=True)):
        name = str(pairs.manifest["config"]["name"])
        if any(name == source.name for source in sources):
            raise UserError(f"index: two inputs are source {name}; name each source once in `source`")
        # Fresh ones, without the manifests: every task gets its own copy.
        artifacts = [Artifact(artifact.url) for artifact in (pairs, raw, signals)]
        sources.append(SourceInputs(number, name, name in config.private_sources, *artifacts))
        for file in pairs.names("pairs-*.parquet"):
            parts.append((number, file.removeprefix("pairs-").removesuffix(".parquet")))
    return sources, parts


def _counted(sources: list[SourceInputs], parts: list[tuple[int, str]]) -> list[RangePart]:
    return [RangePart(source, digits, *rows_of(sources[source], digits)) for source, digits in parts]
