"""Removes forgotten samples from an `index` artifact, whose tables refer to one another by row; one range at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.artifact import Artifact
from stages.base.forgetting import ForgetInputs, Forgotten, Removal
from stages.base.ranges import RANGES, Range
from stages.base.uids import packed
from stages.index.columns import Rows
from stages.index.reader import Index
from stages.index.renumber import Renumbered
from stages.index.schema import file_of
from stages.index.tables import write


def forget(artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
    """Remove rows of all tables and renumber what refers to a row; a forgotten picture that stood for its copies or its
    class is replaced by the next one. Offsets are read again from the inputs `raw`, whose tars were rewritten before
    (`BuildIndex.forget_after`).

    An index of an earlier layout, which nothing reads any more, loses its tables if they hold a forgotten sample.
    """
    if RANGES not in artifact.names():
        return _emptied(artifact, forgotten)
    return _Forgetting(artifact, forgotten).run(inputs, out)


class _Forgetting:
    """Removal of some samples from an index. What it holds in memory is of the size of what is lost, and of a range."""

    def __init__(self, artifact: Artifact, forgotten: Forgotten) -> None:
        self.artifact, self.index, self.forgotten = artifact, Index(artifact), forgotten
        names = self.index.images(0).column_names if self.index.ranges else []
        self.hashes = [name.removeprefix("class_") for name in names if name.startswith("class_phash")]
        rows = [np.empty(0, dtype=np.int64)]
        self.pairs: dict[int, NDArray[np.bool_]] = {}
        """Range -> which of its pairs are lost; of the ranges that lose any."""
        for it in self.index.ranges:
            images = self.forgotten.image_mask(self.index.images(it.number)["image_uid"])
            rows.append(np.flatnonzero(_bools(images)) + it.first_image)
            pairs = _bools(self.forgotten.pair_mask(self.index.pairs(it.number)["uid"]))
            if pairs.any():
                self.pairs[it.number] = pairs
        self.rows: Rows = np.concatenate(rows)
        """Global rows of the images that are lost, ascending."""

    def run(self, inputs: ForgetInputs, out: Path | None) -> Removal:
        """Write what changes below `out`, if there is one."""
        removal = Removal(samples=sum(int(lost.sum()) for lost in self.pairs.values()))
        if not removal.samples and not len(self.rows):
            return removal
        removal.counts.update({"images": -len(self.rows), "pairs": -removal.samples})
        removal.rewritten = [RANGES]
        for it in self.index.ranges:
            if it.number in self.pairs or self._lost_in(it).any():
                removal.rewritten += [file_of("pairs", it.number), file_of("benchmark-texts", it.number)]
        if len(self.rows):  # all rows after the first lost one are renumbered
            removal.rewritten += self.artifact.names("images-*.arrow") + self.artifact.names("near-*.arrow")
            removal.rewritten += [name for name in self.artifact.names("benchmark-*.arrow") if "-texts-" not in name]
        if out is not None:
            self._write(inputs, out, removal)
        return removal

    def _write(self, inputs: ForgetInputs, out: Path, removal: Removal) -> None:
        for it in self.index.ranges:
            if file_of("pairs", it.number) in removal.rewritten:
                removal.counts["benchmark.texts"] += self._write_pairs(it, out)
        listed = self.artifact.read_json(RANGES)
        for entry, it in zip(listed, self.index.ranges, strict=True):
            entry["images"] -= int(self._lost_in(it).sum())
            entry["pairs"] -= int(self.pairs[it.number].sum()) if it.number in self.pairs else 0
        (out / RANGES).write_text(json.dumps(listed), encoding="utf-8")
        if not len(self.rows):
            return
        groups = Renumbered.of(self.index, "group", self.rows)
        removal.counts["pictures"] = -groups.vanished
        removal.counts["benchmark.exact"] = self._write_matches("benchmark-exact.arrow", groups, out)
        if (crops := "benchmark-crops.arrow") in self.artifact.names():
            removal.counts["benchmark.crops"] = self._write_matches(crops, groups, out)
        classes = {}
        for name in self.hashes:
            classes[name] = Renumbered.of(self.index, f"class_{name}", self.rows)
            removal.counts[f"near.{name}"] = classes[name].write_edges(name, out)
            removal.counts[f"benchmark.{name}"] = self._write_matches(f"benchmark-{name}.arrow", classes[name], out)
        for it in self.index.ranges:
            self._write_images(it, groups, classes, inputs, out)

    def _write_images(
        self, it: Range, groups: Renumbered, classes: dict[str, Renumbered], inputs: ForgetInputs, out: Path
    ) -> None:
        table = self.index.images(it.number)
        lost = self._lost_in(it)
        if lost.any():
            table = _located(table, it, inputs)
        table = table.filter(pa.array(~lost))
        group = table["group"].to_numpy()
        copies = groups.others(group, _bools(table["copies"]))
        for name, moved in classes.items():
            label = table[f"class_{name}"].to_numpy()
            similar = moved.others(label, _bools(table[f"similar_{name}"])) | moved.touched(label)
            table = _set(_set(table, f"class_{name}", moved.rows(label)), f"similar_{name}", similar)
        table = _set(_set(table, "group", groups.rows(group)), "copies", copies)
        write(table.unify_dictionaries().combine_chunks(), out / file_of("images", it.number))

    def _write_pairs(self, it: Range, out: Path) -> int:
        """Write a range's pairs and texts; returns the change of the number of texts."""
        table = self.index.pairs(it.number)
        keep = ~self.pairs.get(it.number, np.zeros(table.num_rows, dtype=bool))
        image = np.cumsum(~self._lost_in(it)) - 1
        left = table.filter(pa.array(keep))
        left = _set(left, "image", image[left["image"].to_numpy()])
        write(left.combine_chunks(), out / file_of("pairs", it.number))
        texts = self.index.benchmark_texts(it.number)
        there = texts.filter(pa.array(keep[texts["pair"].to_numpy()]))
        row = np.cumsum(keep) - 1
        there = _set(there, "pair", row[there["pair"].to_numpy()])
        write(there.unify_dictionaries().combine_chunks(), out / file_of("benchmark-texts", it.number))
        return there.num_rows - texts.num_rows

    def _write_matches(self, name: str, moved: Renumbered, out: Path) -> int:
        """Write matches in the benchmarks' images; returns the change of their number."""
        with pa.memory_map(str(self.artifact.path(name))) as mapped:
            table = pa.ipc.open_file(mapped).read_all()
        image = moved.rows(table["image"].to_numpy())
        left = _set(table.filter(pa.array(image >= 0)), "image", image[image >= 0])
        write(_sorted(left).unify_dictionaries().combine_chunks(), out / name)
        return left.num_rows - table.num_rows

    def _lost_in(self, it: Range) -> NDArray[np.bool_]:
        """Which of a range's images are lost."""
        lost = np.zeros(it.images, dtype=bool)
        begin, end = np.searchsorted(self.rows, [it.first_image, it.first_image + it.images])
        lost[self.rows[begin:end] - it.first_image] = True
        return lost


def _emptied(artifact: Artifact, forgotten: Forgotten) -> Removal:
    """Drop all tables of an index of the layout before ranges, where they hold a forgotten sample."""
    tables = artifact.names("*.arrow")
    samples = images = 0
    for name, column, mask in (
        ("pairs.arrow", "uid", forgotten.pair_mask),
        ("images.arrow", "image_uid", forgotten.image_mask),
    ):
        if name not in tables:
            return Removal()
        with pa.memory_map(str(artifact.path(name))) as mapped:
            found = int(_bools(mask(pa.ipc.open_file(mapped).read_all()[column])).sum())
        samples, images = (found, images) if column == "uid" else (samples, found)
    if not samples and not images:
        return Removal()
    return Removal(samples=samples, deleted=tables)


def _located(images: pa.Table, it: Range, inputs: ForgetInputs) -> pa.Table:
    """The table of a range with the offsets that the raw shards have now."""
    fetched = _bools(images["offset"].is_valid())
    offset = pc.fill_null(images["offset"], 0).to_numpy().copy()
    uids = images["image_uid"].combine_chunks()
    for table in _attempts(it, inputs):
        rows = pc.index_in(packed(table["image_uid"]), value_set=uids)
        there = rows.is_valid()
        offset[rows.filter(there).to_numpy()] = table["offset"].combine_chunks().filter(there).to_numpy()
    return _set(images, "offset", pa.array(offset, pa.int64(), mask=~fetched))


def _attempts(it: Range, inputs: ForgetInputs) -> Iterator[pa.Table]:
    raw = inputs.get("raw", ())
    for source, digits in it.parts:
        artifact = raw[source] if source < len(raw) else None
        if artifact is not None and (names := artifact.names(f"attempts-{digits}.parquet")):
            with artifact.open(names[0]) as file:
                yield pq.read_table(file, columns=["image_uid", "offset"]).drop_null()


def _sorted(matches: pa.Table) -> pa.Table:
    """Matches in a benchmark, in the order of image, benchmark, file."""
    plain = matches["benchmark"].cast(pa.string())  # Arrow does not sort by a dictionary
    keys = pa.table({"image": matches["image"], "benchmark": plain, "file": matches["file"]})
    return matches.take(pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names]))


def _bools(column: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    return column.to_numpy(zero_copy_only=False).astype(bool) if isinstance(column, pa.Array) else _bools(_one(column))


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def _set(table: pa.Table, name: str, values: NDArray[np.generic] | pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    column = values if isinstance(values, pa.Array) else pa.array(values)
    return table.set_column(place, table.schema.field(place), column.cast(table.schema.field(place).type))
