"""Caches the results of each family by raw shard, so that only a new or changed family has to be measured."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.base.artifact import Artifact, is_remote
from stages.base.cache import Cache
from stages.imaging.decode import VERSION
from stages.signals import tables
from stages.signals.family import Family
from stages.signals.registry import family_settings

log = logging.getLogger(__name__)

#: Increment it when the order of rows changes: that invalidates all cached results.
_LAYOUT = 1
_SUFFIX = ".parquet"


class ResultCache:
    """Cached results of one partition: family -> table of its columns, in the order of the partition's rows."""

    def __init__(self, cache: str, raw: Artifact, pairs: Artifact, number: str) -> None:
        """`cache` is :attr:`StageContext.cache`; an empty string disables it."""
        self._cache = Cache(cache) if cache else None
        self._shard = _sha256(raw, f"raw-{number}.tar")
        self._pairs = _sha256(pairs, f"pairs-{number}.parquet")

    def key(self, family: Family[Any]) -> str:
        """Digest of what determines a family's result: versions, settings, the shard, and for pairs their list."""
        parts: dict[str, Any] = {"layout": _LAYOUT, "family": family.name, "what": family_settings(family)}
        parts |= {"identity": dict(family.identity()), "columns": dict(family.columns), "shard": self._shard}
        if "image" in family.reads:
            parts["decoding"] = VERSION
        if family.table == "pairs":
            parts["pairs"] = self._pairs
        return Cache.key(**parts)

    def get(self, family: Family[Any], base: pa.Table) -> pa.Table | None:
        """The result for the rows of `base` (attempts or pairs), or None if none is cached for exactly these rows."""
        if self._cache is None or (file := self._cache.get(self.key(family), _SUFFIX)) is None:
            return None
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowInvalid) as problem:
            log.warning("signals: a cached result of %s cannot be read and is measured again: %s", family.name, problem)
            return None
        finally:
            if is_remote(self._cache.url):
                shutil.rmtree(file.parent, ignore_errors=True)
        uids, schema = _uids(family, base), tables.schema(family)
        fits = table.column_names == [*uids.column_names, *schema.names] and table.select(uids.column_names) == uids
        result = table.select(schema.names) if fits else None
        return result if result is not None and result.schema.equals(schema) else None

    def put(self, family: Family[Any], base: pa.Table, table: pa.Table) -> None:
        """Store a result for the rows of `base`, with their uids, by which `pairmill forget` finds what to remove."""
        if self._cache is None:
            return
        with tempfile.TemporaryDirectory(prefix="pairmill-signals-") as folder:
            file = Path(folder, "result" + _SUFFIX)
            whole = _uids(family, base)
            for field in table.schema:
                whole = whole.append_column(field, table[field.name])
            tables.write(whole, file)
            self._cache.put(self.key(family), file, _SUFFIX)


def _uids(family: Family[Any], base: pa.Table) -> pa.Table:
    names = ["image_uid"] if family.table == "images" else ["uid", "image_uid"]
    plain = base.select(names)
    return plain.cast(pa.schema([pa.field(name, pa.string()) for name in names]))


def _sha256(artifact: Artifact, name: str) -> str:
    (digest,) = (file["sha256"] for file in artifact.manifest["files"] if file["name"] == name)
    return str(digest)
