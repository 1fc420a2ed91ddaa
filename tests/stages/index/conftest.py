"""Fixtures of the `index` tests: several sources, measured for real, and a world with benchmark images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stages.base.artifact import Artifact
from stages.base.ranges import from_json
from stages.base.tasks import InProcess
from stages.base.uids import as_hex
from stages.index.cells import CELL_ROWS
from stages.index.matches import Pictures
from stages.index.near import NearCopies
from stages.index.partition import Measured
from stages.index.reader import Index
from stages.index.work import IndexWork
from stages.signals.config import SignalsConfig
from stages.signals.stage import Signals


@pytest.fixture
def measured(fetched_source, run_stage) -> Callable[..., dict[str, list[Artifact]]]:
    """Inputs of `index` from `{source: images}`, see `fetched_source`; the signals are measured by the real stage."""

    def make(sources: dict[str, Sequence[tuple[Any, ...]]], partitions: int = 2) -> dict[str, list[Artifact]]:
        inputs: dict[str, list[Artifact]] = {"pairs": [], "raw": [], "signals": []}
        for name, images in sources.items():
            pairs, raw = fetched_source(name, images, partitions)
            inputs["pairs"].append(pairs)
            inputs["raw"].append(raw)
            signals = Signals(SignalsConfig(families=("size", "tone", "hashes", "text")))
            inputs["signals"].append(run_stage(signals, {"pairs": [pairs], "raw": [raw]}))
        return inputs

    return make


@pytest.fixture
def world(tmp_path_factory, seal) -> Callable[..., Artifact]:
    """A world artifact from `{file name: bytes}`."""

    def make(files: dict[str, bytes], name: str = "demo") -> Artifact:
        folder = tmp_path_factory.mktemp(f"world-{name}")
        for file, data in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
        return seal(folder, "world", name)

    return make


@pytest.fixture(scope="session")
def clustered() -> Callable[..., np.ndarray]:
    """Hashes uint64 [count, words], of which many are a few flipped bits away from one another."""

    def make(random: np.random.Generator, count: int, words: int = 1) -> np.ndarray:
        seeds = random.integers(0, 1 << 63, (max(1, count // 6), words), dtype=np.uint64)
        hashes = seeds[random.integers(0, len(seeds), count)]
        for _ in range(6):
            flip = np.uint64(1) << random.integers(0, 64, (count, words)).astype(np.uint64)
            hashes = hashes ^ np.where(random.random((count, words)) < 0.4, flip, np.uint64(0))
        return hashes

    return make


@dataclass(frozen=True)
class Near:
    """What a search by one hash found: rows `NEAR`, and per picture the first of its class."""

    edges: pa.Table
    classes: np.ndarray
    among: np.ndarray
    """bool: whether the class has others."""


@pytest.fixture(scope="session")
def near_copies() -> Callable[..., Near]:
    """The search among pictures of different pixels, divided into ranges and cells, without Ray."""

    def search(
        pictures: Pictures, radius: int, most: int = 10**6, rows: int = 10**9, cell_rows: int = CELL_ROWS
    ) -> Near:
        with tempfile.TemporaryDirectory() as folder:
            sizes = [min(rows, len(pictures) - begin) for begin in range(0, len(pictures), rows)] or [0]
            ranges = from_json({"parts": [], "images": size, "pairs": size} for size in sizes)
            none = Measured(pa.schema([]), pa.schema([]))
            work = IndexWork(folder, tuple(ranges), (), none, (pictures.hash,))
            copies = NearCopies(work, pictures.hash)
            numbers = range(len(ranges))
            for it in ranges:
                mine = np.arange(it.first_image, it.first_image + it.images)
                work.thumbnails.write(it.number, pictures.thumbnails[mine])
                copies.send(it.number, pictures.words[mine], mine)
            settled = [copies.settle(bucket) for bucket in numbers]
            copies.search(InProcess(), settled, radius, most, cell_rows)
            parts = [copies.classes_of_leads(number) for number in numbers]
            edges = [copies.edges(number) for number in numbers]
            for number, part in zip(numbers, edges, strict=True):
                assert (work.thumbnails.range_of(part["first"].to_numpy()) == number).all()
                seconds = [it["second"].to_numpy() for it in edges]
                told = [s[work.thumbnails.range_of(s) == number] for s in seconds]
                assert set(copies.seconds(number).tolist()) == set(np.concatenate(told).tolist())
            classes, among = (np.concatenate([part[n] for part in parts]) for n in (1, 2))
            return Near(pa.concat_tables(edges), classes, among)

    return search


class Whole:
    """An index read whole: rows of all tables are global, uids are hex digits."""

    def __init__(self, artifact: Artifact) -> None:
        self.index = Index(artifact)
        ranges = self.index.ranges
        self.images = self._table([self.index.images(it.number) for it in ranges], "image_uid")
        pairs = [self._moved(self.index.pairs(it.number), "image", it.first_image) for it in ranges]
        self.pairs = self._table(pairs, "uid")
        texts = [self._moved(self.index.benchmark_texts(it.number), "pair", it.first_pair) for it in ranges]
        self.benchmark_texts = pa.concat_tables(texts)

    def near(self, hash: str) -> pa.Table:
        return pa.concat_tables([self.index.near(hash, it.number) for it in self.index.ranges])  # type: ignore[arg-type]

    def uids(self, column: str) -> list[str | None]:
        """What a column of rows of images names."""
        uids = self.images["image_uid"].to_pylist()
        return [uids[row] if row >= 0 else None for row in self.images[column].to_pylist()]

    def by_uid(self) -> dict[str, Any]:
        """All that the index says, without a row: the same however it is divided."""
        uids = self.images["image_uid"].to_pylist()
        pairs = self.pairs["uid"].to_pylist()
        images = {row["image_uid"]: row for row in self.images.to_pylist()}
        for name in self.images.column_names:
            if name == "group" or name.startswith("class_"):
                for uid, value in zip(uids, self.uids(name), strict=True):
                    images[uid][name] = value
        said: dict[str, Any] = {"images": images}
        said["pairs"] = {row["uid"]: {**row, "image": uids[row["image"]]} for row in self.pairs.to_pylist()}
        said["texts"] = sorted(
            (pairs[r["pair"]], r["benchmark"], r["overlap"]) for r in self.benchmark_texts.to_pylist()
        )
        matches = {"exact": self.index.benchmark_exact}
        if self.index.artifact.manifest["config"].get("crops"):
            matches["crops"] = self.index.benchmark_crops
        for hash in self.index.radius:
            edges = self.near(hash).to_pylist()
            said[hash] = sorted((uids[r.pop("first")], uids[r.pop("second")], tuple(r.values())) for r in edges)
            matches[hash] = self.index.benchmark_near(hash)
        for name, table in matches.items():
            said[f"benchmark {name}"] = sorted((uids[r.pop("image")], *r.values()) for r in table.to_pylist())
        return said

    @staticmethod
    def _moved(table: pa.Table, name: str, by: int) -> pa.Table:
        return table.set_column(table.schema.get_field_index(name), name, pa.array(table[name].to_numpy() + by))

    @staticmethod
    def _table(parts: list[pa.Table], uid: str) -> pa.Table:
        assert len({part.schema for part in parts}) == 1
        table = pa.concat_tables(parts, promote_options="none")
        return table.set_column(table.schema.get_field_index(uid), uid, as_hex(table[uid]))


@pytest.fixture
def whole() -> Callable[[Artifact], Whole]:
    """Reads an index whole."""
    return Whole
