"""Removes forgotten samples from an `index` artifact, whose tables refer to one another by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.base.artifact import Artifact
from stages.base.forgetting import ForgetInputs, Forgotten, Removal

Rows = NDArray[np.int64]


def forget(artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
    """Remove rows of all tables and renumber what refers to a row; a forgotten picture that represented its copies is
    replaced by the next one with its pixels. Offsets are read again from the inputs `raw`, whose tars were rewritten
    before (`BuildIndex.forget_after`)."""
    images, pairs = _read(artifact, "images.arrow"), _read(artifact, "pairs.arrow")
    lost_images = forgotten.image_mask(images["image_uid"]).to_numpy().astype(bool)
    lost_pairs = forgotten.pair_mask(pairs["uid"]).to_numpy().astype(bool)
    removal = Removal(samples=int(lost_pairs.sum()))
    if not (lost_images.any() or lost_pairs.any()):
        return removal
    removal.counts.update({"images": -int(lost_images.sum()), "pairs": -removal.samples})
    tables = [name for name in artifact.names("*.arrow") if name not in ("images.arrow", "pairs.arrow")]
    removal.rewritten = ["images.arrow", "pairs.arrow", *tables]
    if out is None:
        return removal
    moved = _Moved(images, ~lost_images)
    removal.counts["pictures"] = len(np.unique(moved.leader[moved.leader >= 0])) - _pictures(images)
    _write(out / "images.arrow", _located(moved.images(images), inputs))
    pair_rows = np.cumsum(~lost_pairs) - 1
    left = pairs.filter(pa.array(~lost_pairs))
    _write(out / "pairs.arrow", _set(left, "image", moved.row[left["image"].to_numpy()]))
    classes: dict[str, NDArray[np.int64]] = {}
    for name in tables:
        if name.startswith("near-"):
            table = _read(artifact, name)
            near = moved.near(table)
            _write(out / name, near)
            removal.counts[_count(name)] = near.num_rows - table.num_rows
            classes[name.removeprefix("near-")] = moved.standing(table)
    for name in tables:
        table = _read(artifact, name)
        before = table.num_rows
        if name == "benchmark-texts.arrow":
            there = ~lost_pairs[table["pair"].to_numpy()]
            table = table.filter(pa.array(there))
            _write(out / name, _set(table, "pair", pair_rows[table["pair"].to_numpy()]))
        elif name.startswith("benchmark-"):
            standing = classes.get(name.removeprefix("benchmark-"), moved.leader)
            image = standing[table["image"].to_numpy()]
            table = _set(table.filter(pa.array(image >= 0)), "image", moved.row[image[image >= 0]])
            _write(out / name, _sorted(table))
        if name.startswith("benchmark-"):
            removal.counts[_count(name)] = table.num_rows - before
    return removal


def _pictures(images: pa.Table) -> int:
    group = images["group"].to_numpy()
    return int((group == np.arange(len(group))).sum())


def _count(table: str) -> str:
    """The counter of a table's rows: `near-phash.arrow` -> `near.phash`."""
    return table.removesuffix(".arrow").replace("-", ".", 1)


class _Moved:
    """New positions of the images' rows, and the picture that represents a removed one now. Old row numbers throughout,
    except for `row`."""

    def __init__(self, images: pa.Table, keep: NDArray[np.bool_]) -> None:
        self.keep = keep
        self.row: Rows = np.cumsum(keep) - 1
        group = images["group"].to_numpy()
        left = np.flatnonzero(keep & (group >= 0))
        groups, first = np.unique(group[left], return_index=True)
        self.leader: Rows = np.full(len(keep), -1, dtype=np.int64)
        """Old leader of a group -> the first of it that is left, or -1."""
        self.leader[groups] = left[first]

    def images(self, table: pa.Table) -> pa.Table:
        """The rows that are left, with their new leaders."""
        left = table.filter(pa.array(self.keep))
        group = left["group"].to_numpy()
        leader = self.leader[np.where(group >= 0, group, 0)]
        return _set(left, "group", np.where(group >= 0, self.row[leader], -1))

    def standing(self, near: pa.Table) -> Rows:
        """Old leader -> the first left of its class (pictures of equal hash and thumbnail, which a hash's tables name
        by their first, see `stages/index/schema.py`), or -1."""
        classes = self._classes(near)
        return self._first_of_class(classes)[classes]

    def near(self, table: pa.Table) -> pa.Table:
        """The rows between pictures that are left, in the form the schema states: stars inside a class, and rows
        between classes carried by the first member."""
        first, second, same = _ends(table)
        classes = self._classes(table)
        hubs = self._first_of_class(classes)
        between = np.flatnonzero(~same)
        a, b = hubs[classes[first[between]]], hubs[classes[second[between]]]
        there = (a >= 0) & (b >= 0)
        between, a, b = between[there], a[there], b[there]
        # A class of k members has k-1 rows: of its members that are left, all but the new first keep or get one.
        stars = np.flatnonzero(same)
        of_class, sample = np.unique(first[stars], return_index=True)
        members = np.concatenate([of_class, second[stars]])
        rows = np.concatenate([stars[sample], stars])
        place = self.leader[members]
        hub = hubs[classes[members]]
        inside = (place >= 0) & (place != hub)
        new = table.take(pa.array(np.concatenate([between, rows[inside]])))
        low = np.concatenate([np.minimum(a, b), hub[inside]])
        high = np.concatenate([np.maximum(a, b), place[inside]])
        new = _set(_set(new, "first", self.row[low]), "second", self.row[high])
        return new.sort_by([("first", "ascending"), ("second", "ascending")])

    def _classes(self, near: pa.Table) -> Rows:
        """Leader -> first member of its class."""
        first, second, same = _ends(near)
        classes = np.arange(len(self.keep), dtype=np.int64)
        classes[second[same]] = first[same]
        return classes

    def _first_of_class(self, classes: Rows) -> Rows:
        """First member -> first member that is left, or -1."""
        first = np.full(len(classes), len(classes), dtype=np.int64)
        leaders = np.flatnonzero(self.leader >= 0)
        np.minimum.at(first, classes[leaders], self.leader[leaders])
        return np.where(first == len(classes), -1, first)


def _sorted(matches: pa.Table) -> pa.Table:
    """Matches in a benchmark, in the order of image, benchmark, file."""
    plain = matches["benchmark"].cast(pa.string())  # Arrow does not sort by a dictionary
    keys = pa.table({"image": matches["image"], "benchmark": plain, "file": matches["file"]})
    return matches.take(pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names]))


def _ends(near: pa.Table) -> tuple[Rows, Rows, NDArray[np.bool_]]:
    first, second = (near[name].to_numpy().astype(np.int64) for name in ("first", "second"))
    same = (near["distance"].to_numpy() == 0) & (near["difference"].to_numpy() == 0)
    return first, second, same


def _located(images: pa.Table, inputs: ForgetInputs) -> pa.Table:
    """The table with the offsets that the raw shards have now."""
    fetched = images["offset"].is_valid().to_numpy()
    offset = pc.fill_null(images["offset"], 0).to_numpy().copy()
    uids = images["image_uid"].combine_chunks()
    for raw in inputs.get("raw", ()):
        for name in raw.names("attempts-*.parquet") if raw is not None else ():
            assert raw is not None
            with raw.open(name) as file:
                table = pq.read_table(file, columns=["image_uid", "offset"]).drop_null()
            rows = pc.index_in(table["image_uid"], value_set=uids)
            there = rows.is_valid()
            offset[rows.filter(there).to_numpy()] = table["offset"].filter(there).to_numpy()
    return _set(images, "offset", pa.array(offset, pa.int64(), mask=~fetched))


def _set(table: pa.Table, name: str, values: NDArray[np.int64] | pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    column = values if isinstance(values, pa.Array) else pa.array(values)
    return table.set_column(place, table.schema.field(place), column.cast(table.schema.field(place).type))


def _read(artifact: Artifact, name: str) -> pa.Table:
    with pa.memory_map(str(artifact.path(name))) as mapped:
        return pa.ipc.open_file(mapped).read_all()


def _write(path: Path, table: pa.Table) -> None:
    # One batch a column: lookups by row then never have to find theirs.
    table = table.unify_dictionaries().combine_chunks()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
