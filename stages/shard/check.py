"""Checks a folder of shards: ours against index and hashes, anyone else's as far as a tar allows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from stages.base.contract import UserError
from stages.imaging.decode import UndecodableImage, draft_small, load
from stages.shard.index import IndexRow
from stages.shard.reader import ShardReader
from stages.shard.repeats import RepeatedKeys
from stages.shard.scan import BrokenTar, iter_samples, to_row
from stages.shard.tarcheck import RESTORE, ShardFault, TarCheck

_PIECE = 1 << 20
_FETCH = "fetch or write the tar again"
_SAMPLE = "leave the sample out, or write the tar again"


@dataclass
class ShardCheck:
    """Result of checking one shard."""

    shard: int
    samples: int = 0
    bytes: int = 0
    problems: list[ShardFault] = field(default_factory=list)
    uids: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """xxh3_64 of each sample's uid, in order: enough to detect repeated uids over all shards."""
    system_files: int = 0
    """Members that an operating system added, which belong to no sample."""


@dataclass
class Report:
    """Result of checking a folder."""

    where: str
    shards: int
    samples: int = 0
    bytes: int = 0
    problems: list[ShardFault] = field(default_factory=list)
    system_files: int = 0


#: Runs :func:`check_shard` on shards by number, in any order; the flag is its `by_index`.
Execute = Callable[[Sequence[int], bool], Iterable[ShardCheck]]


def check(reader: ShardReader, execute: Execute) -> Report:
    """Check each shard, then what spans them. Raises UserError if there are no shards at all."""
    problems = list(_own_files(reader))
    by_index = False
    if reader.indexed:
        try:
            problems += _index_faults(reader)
            by_index = True
        except (pa.ArrowInvalid, ValueError, KeyError, OSError) as error:
            problems.append(ShardFault("index.arrow", f"cannot be read ({_line(error)})", RESTORE))
    try:
        names = reader.shards
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise UserError(f"{reader.where}: dataset.json cannot be read ({_line(error)}); {RESTORE}") from None
    report = Report(reader.where, len(names))
    found: list[tuple[int, list[ShardFault]]] = []
    with RepeatedKeys() as digests:
        for result in execute(range(len(names)), by_index):
            report.samples += result.samples
            report.bytes += result.bytes
            report.system_files += result.system_files
            if result.problems:
                found.append((result.shard, result.problems))
            digests.add(result.shard, result.uids)
        for _, faults in sorted(found, key=lambda entry: entry[0]):
            problems += faults
        problems += _repeated(reader, digests, by_index)
    report.problems = problems
    return report


def check_shard(reader: ShardReader, number: int, by_index: bool) -> ShardCheck:
    """Check one shard: its presence, size, sha256 where listed, and its samples. Checking continues after damage.

    With `by_index` every byte is compared with the index; without, the tar's own headers are followed.
    """
    name = reader.shards[number]
    result = ShardCheck(number)
    rows = [reader.index[i] for i in reader.of_shard(number)] if by_index else []
    result.samples = len(rows)
    result.uids = _digests(row.uid for row in rows)
    listed: dict[str, Any] = reader.dataset["shards"][number] if reader.indexed else {}
    try:
        size = reader.files.size(name)
        with reader.files.open(name) as file:
            result.bytes = size
            if by_index:
                short = size < listed.get("bytes", size + 1)
                result.problems += TarCheck(name, file, size, short, rows, _look).problems()
            else:
                passed_over: Counter[str] = Counter()
                identities = list(_foreign(name, file, result.problems, passed_over))
                result.system_files = passed_over["system_files"]
                result.samples, result.uids = len(identities), _digests(uid for uid, _ in identities)
            if not result.problems:
                result.problems += _against_list(name, file, size, listed)
    except FileNotFoundError:
        lost = f" with {len(rows)} samples" if rows else ""
        result.problems.append(ShardFault(name, f"the shard is missing{lost}", RESTORE))
    except OSError as error:
        result.problems.append(ShardFault(name, f"cannot be read ({_line(error)})", "check the disk or the store"))
    if result.samples != listed.get("samples", result.samples):
        what = f"{result.samples} samples are in the index, {listed['samples']} in dataset.json"
        what = what if by_index else f"{result.samples} samples are in the tar, {listed['samples']} in dataset.json"
        result.problems.append(ShardFault(name, what, RESTORE))
    return result


def _own_files(reader: ShardReader) -> Iterator[ShardFault]:
    """Compare index and `dataset.json` with the artifact's manifest, if there is one."""
    try:
        manifest = json.loads(reader.files.whole("manifest.json").read_bytes())
        hashes = {file["name"]: file.get("sha256") for file in manifest["files"]}
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        yield ShardFault("manifest.json", "is not a manifest", RESTORE)
        return
    for name in ("dataset.json", "index.arrow"):
        if hashes.get(name) is None:
            continue
        try:
            with open(reader.files.whole(name), "rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == hashes[name]
        except FileNotFoundError:
            yield ShardFault(name, "is missing", RESTORE)
            continue
        if not same:
            yield ShardFault(name, "is not what was written (its sha256 differs from the manifest's)", RESTORE)


def _index_faults(reader: ShardReader) -> Iterator[ShardFault]:
    """Counts that disagree. Raises whatever opening an index raises."""
    index, dataset = reader.index, reader.dataset
    if len(index) != dataset["samples"]:
        what = f"has {len(index)} rows, dataset.json {dataset['samples']} samples"
        yield ShardFault("index.arrow", what, RESTORE)
    index.check_order()
    first, last = index.of_shard(0).start, index.of_shard(len(reader.shards)).start
    for i in (*range(first), *range(last, len(index))):
        row = index[i]
        yield ShardFault("index.arrow", f"row {i} refers to shard {row.shard}, which does not exist", RESTORE, row.uid)


def _against_list(name: str, file: IO[bytes], size: int, listed: dict[str, Any]) -> Iterator[ShardFault]:
    """Compare an otherwise intact shard with `dataset.json`: a flipped bit needs no second line for the whole file."""
    if size != listed.get("bytes", size):
        yield ShardFault(name, f"{size} bytes instead of {listed['bytes']}", RESTORE)
        return
    expected = listed.get("sha256")
    if expected is None:
        return
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(_PIECE):
        digest.update(piece)
    if digest.hexdigest() != expected:
        yield ShardFault(name, f"its sha256 is {digest.hexdigest()}, in dataset.json {expected}", RESTORE)


def _look(row: IndexRow, parts: dict[str, bytes]) -> Iterator[str]:
    """Problems of one of our samples: an image that does not decode, JSON that disagrees with index, image or text."""
    size = _decoded(parts["image"])
    if size is None:
        yield "its image does not decode"
    if "json" not in parts:
        return
    try:
        record = json.loads(parts["json"])
    except ValueError:
        record = None
    if not isinstance(record, dict):
        yield "its .json is not a JSON object"
        return
    agreed: dict[str, Any] = {"uid": row.uid, "image_uid": row.image_uid, "source": row.source}
    agreed["sha256"] = hashlib.sha256(parts["image"]).hexdigest()
    if "text" in parts:
        agreed["caption"] = parts["text"].decode("utf-8", "replace")
    if size is not None:
        agreed |= {"width": size[0], "height": size[1]}
    for key, value in agreed.items():
        if key in record and record[key] != value:
            against = {"caption": ".txt", "uid": "index", "image_uid": "index", "source": "index"}.get(key, "image")
            yield f"its .json disagrees with its {against} on {key}"


def _decoded(data: bytes) -> tuple[int, int] | None:
    """Width and height of an image; None if it does not decode."""
    try:
        return load(data, draft=draft_small).size
    except UndecodableImage:
        return None


def _foreign(
    name: str, file: IO[bytes], problems: list[ShardFault], passed_over: Counter[str]
) -> Iterator[tuple[str, int]]:
    """uid and image offset of each sample of a tar without an index; appends what is wrong to `problems`, and counts
    in `passed_over`."""
    try:
        for key, parts in iter_samples(file, passed_over):
            first = min(part.offset for part in parts.values())
            try:
                row = to_row(0, key, parts)
            except ValueError as error:
                problems.append(ShardFault(name, f"it {error}", _SAMPLE, key, first))
                continue
            file.seek(row.image_offset)
            if _decoded(file.read(row.image_length)) is None:
                problems.append(ShardFault(name, "its image does not decode", _SAMPLE, row.uid, row.image_offset))
            yield row.uid, row.image_offset
    except BrokenTar as broken:
        lost = "; what follows cannot be read" if broken.lost else ""
        problems.append(ShardFault(name, f"{broken}{lost}", _FETCH, None, broken.offset))


def _digests(uids: Iterable[str]) -> np.ndarray:
    return np.array([xxh3_64_intdigest(uid.encode()) for uid in uids], np.uint64)


def _repeated(reader: ShardReader, digests: RepeatedKeys, by_index: bool) -> Iterator[ShardFault]:
    """uids shared by several samples, over all shards."""

    @lru_cache(maxsize=16)
    def identities(shard: int) -> list[tuple[str, int]]:
        return _identities(reader, shard, by_index)

    for (shard, position), (another, its) in digests.pairs():
        uid, offset = identities(shard)[position]
        other, at = identities(another)[its]
        if uid == other:  # not just equal digests
            what = f"its uid is also that of the sample in {reader.shards[shard]} at offset {offset}"
            yield ShardFault(reader.shards[another], what, RESTORE if by_index else _SAMPLE, uid, at)


def _identities(reader: ShardReader, shard: int, by_index: bool) -> list[tuple[str, int]]:
    if by_index:
        return [(row.uid, row.image_offset) for row in (reader.index[i] for i in reader.of_shard(shard))]
    name = reader.shards[shard]
    with reader.files.open(name) as file:
        return list(_foreign(name, file, [], Counter()))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
