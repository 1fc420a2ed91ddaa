"""Measures several families in one pass over a raw shard: every image is read and decoded once for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa

from stages.imaging.decode import UndecodableImage, decode_rgb
from stages.signals.family import BytesFamily, Family, ImageFamily, JointFamily, Listing, PairFamily, Row


class ShardError(Exception):
    """A raw shard and its table of attempts disagree."""


def measure(
    families: Sequence[Family[Any]], attempts: pa.Table, shard: IO[bytes], pairs: pa.Table
) -> dict[str, list[Row]]:
    """Rows of each (loaded) family, by name, aligned with `attempts` or, for families on pairs, with `pairs`.

    `attempts` has columns image_uid, offset, length; `pairs` has image_uid, caption, meta. A row is empty where the
    image does not decode, and where a family needs a caption and there is none. Raises ShardError if the shard is
    shorter than `attempts` implies.
    """
    rows: dict[str, list[Row]] = {}
    collectors = [_Images(family) for family in families if isinstance(family, ImageFamily | BytesFamily)]
    joint = [_Joint(family, pairs.num_rows) for family in families if isinstance(family, JointFamily)]
    if collectors or joint:
        captions = _by_image(pairs) if joint else {}
        decodes = bool(joint) or any(isinstance(each.family, ImageFamily) for each in collectors)
        for uid, data in _read(attempts, shard):
            rgb = _decoded(data) if decodes else None
            for each in collectors:
                each.add(data if isinstance(each.family, BytesFamily) else rgb)
            for every in joint:
                every.add(rgb, captions.get(uid, []))
        everyone: list[_Images | _Joint] = [*collectors, *joint]
        for collector in everyone:
            collector.flush()
            rows[collector.family.name] = collector.rows
    for family in families:
        if isinstance(family, PairFamily):
            rows[family.name] = _measure_pairs(family, pairs)
    return rows


def _read(attempts: pa.Table, shard: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    columns = (attempts[name].to_pylist() for name in ("image_uid", "offset", "length"))
    for uid, offset, length in zip(*columns, strict=True):
        shard.seek(offset)
        data = shard.read(length)
        if len(data) != length:
            raise ShardError(f"image {uid} lies beyond the end")
        yield uid, data


def _decoded(data: bytes) -> Any:
    try:
        return decode_rgb(data)
    except UndecodableImage:
        return None


def _by_image(pairs: pa.Table) -> dict[str, list[tuple[int, str]]]:
    """Number and caption of every pair that has one, by image."""
    captions: dict[str, list[tuple[int, str]]] = {}
    columns = zip(pairs["image_uid"].to_pylist(), pairs["caption"].to_pylist(), strict=True)
    for number, (uid, caption) in enumerate(columns):
        if caption:  # an image-only sample has none
            captions.setdefault(uid, []).append((number, caption))
    return captions


def _measure_pairs(family: PairFamily[Any], pairs: pa.Table) -> list[Row]:
    rows: list[Row] = []
    for start in range(0, pairs.num_rows, family.batch):
        part = pairs.slice(start, family.batch)
        captions, metas = part["caption"].to_pylist(), part["meta"].to_pylist()
        chosen = [n for n, caption in enumerate(captions) if caption or not family.needs_caption]
        measured = family.measure([Listing(captions[n], json.loads(metas[n])) for n in chosen]) if chosen else []
        of_part: list[Row] = [{}] * part.num_rows
        for number, row in zip(chosen, _checked(family, measured, len(chosen)), strict=True):
            of_part[number] = row
        rows.extend(of_part)
    return rows


class _Images:
    """Batches images for a family and collects its rows."""

    def __init__(self, family: ImageFamily[Any] | BytesFamily[Any]) -> None:
        self.family = family
        self.rows: list[Row] = []
        self._waiting: list[tuple[int, Any]] = []

    def add(self, image: Any) -> None:
        self.rows.append({})
        if image is None:
            return
        self._waiting.append((len(self.rows) - 1, self.family.prepare(image)))
        if len(self._waiting) >= self.family.batch:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        measured = self.family.measure([prepared for _, prepared in self._waiting])
        for (number, _), row in zip(self._waiting, _checked(self.family, measured, len(self._waiting)), strict=True):
            self.rows[number] = row
        self._waiting.clear()


class _Joint:
    """Batches images and their captions for a family and collects its rows."""

    def __init__(self, family: JointFamily[Any], pairs: int) -> None:
        self.family = family
        self.rows: list[Row] = [{}] * pairs
        self._waiting: list[tuple[Any, list[tuple[int, str]]]] = []

    def add(self, image: Any, captions: list[tuple[int, str]]) -> None:
        if image is None or not captions:
            return
        self._waiting.append((self.family.prepare(image), captions))
        if len(self._waiting) >= self.family.batch:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        texts = [[caption for _, caption in captions] for _, captions in self._waiting]
        measured = self.family.measure([prepared for prepared, _ in self._waiting], texts)
        for (_, captions), rows in zip(self._waiting, measured, strict=True):
            for (number, _), row in zip(captions, _checked(self.family, rows, len(captions)), strict=True):
                self.rows[number] = row
        self._waiting.clear()


def _checked(family: Family[Any], rows: Sequence[Row], count: int) -> Sequence[Row]:
    """The rows. Raises ValueError unless there is one per item, with the columns that the family declares."""
    if len(rows) != count:
        raise ValueError(f"signals: family {family.name!r} gave {len(rows)} rows for a batch of {count}")
    for row in rows:
        if row.keys() != family.columns.keys():
            actual, declared = sorted(row), sorted(family.columns)
            raise ValueError(f"signals: family {family.name!r} gave the columns {actual}, not {declared}")
    return rows
