"""A shard's ids kept in the stage's cache, so that only shards that changed are encoded anew."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.base.artifact import canonical_json, is_remote
from stages.base.cache import Cache
from stages.tokens.encode import Encoded

log = logging.getLogger(__name__)

#: Raise it when equal captions and an equal tokenizer give other ids, or an entry is laid out otherwise.
_LAYOUT = 1
_SUFFIX = ".parquet"
#: What of `tokenizer.json` decides ids or the way back. The rest frames, cuts and pads, which is not done here.
_DECIDES = ("added_tokens", "normalizer", "pre_tokenizer", "model", "decoder")


def tokenizer_digest(content: Mapping[str, Any]) -> str:
    """sha256 of what decides ids in a parsed `tokenizer.json`."""
    return hashlib.sha256(canonical_json({key: content.get(key) for key in _DECIDES}).encode()).hexdigest()


class Kept:
    """The cache as it looks for one tokenizer.

    Entries are tables with a row per caption and its uid, by which `pairmill forget` finds those that must go: a
    forgotten caption's ids are a caption.
    """

    def __init__(self, cache: str, tokenizer: str) -> None:
        """`cache` is :attr:`StageContext.cache`; nothing is kept where it is empty. `tokenizer` is its digest."""
        self._cache = Cache(cache) if cache else None
        self._tokenizer = tokenizer

    def get(self, shard: str | None, uids: pa.Array) -> Encoded | None:
        """The ids of the shard with this sha256, or None where none are kept for just these samples."""
        if self._cache is None or shard is None:
            return None
        file = self._cache.get(self._key(shard), _SUFFIX)
        if file is None:
            return None
        try:
            table = pq.read_table(file).combine_chunks()
        except (OSError, pa.ArrowInvalid) as problem:
            log.warning("tokens: kept ids cannot be read and are made anew: %s", problem)
            return None
        finally:
            if is_remote(self._cache.url):
                shutil.rmtree(file.parent, ignore_errors=True)
        if table.column_names != ["uid", "ids", "changed"] or not table["uid"].combine_chunks().equals(uids):
            return None
        ids = pa.concat_arrays(table["ids"].chunks) if table.num_rows else None
        if ids is None:
            return None
        offsets = ids.offsets.to_numpy()
        flat = ids.values.to_numpy()[offsets[0] : offsets[-1]]
        return Encoded(flat, offsets - offsets[0], table["changed"].to_numpy())

    def put(self, shard: str | None, uids: pa.Array, encoded: Encoded) -> None:
        """Keep the ids of a shard's captions."""
        if self._cache is None or shard is None or not len(uids):
            return
        ids = pa.LargeListArray.from_arrays(pa.array(encoded.offsets), pa.array(encoded.ids))
        table = pa.table({"uid": uids, "ids": ids, "changed": pa.array(np.asarray(encoded.changed))})
        with tempfile.TemporaryDirectory(prefix="pairmill-tokens-") as folder:
            file = Path(folder, "ids" + _SUFFIX)
            pq.write_table(table, file, compression="zstd")
            self._cache.put(self._key(shard), file, _SUFFIX)

    def _key(self, shard: str) -> str:
        return Cache.key(layout=_LAYOUT, shard=shard, tokenizer=self._tokenizer)
