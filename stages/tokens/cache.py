"""Caches each shard's ids, so that only shards that changed are encoded again."""

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

#: Increment it when the same captions and tokenizer give different ids, or when the layout of an entry changes.
_LAYOUT = 1
_SUFFIX = ".parquet"
#: Keys of `tokenizer.json` that decide encoding or decoding; the others add control tokens, truncate and pad.
_DECIDES = ("added_tokens", "normalizer", "pre_tokenizer", "model", "decoder")


def tokenizer_digest(content: Mapping[str, Any]) -> str:
    """sha256 of the parts of a parsed `tokenizer.json` that decide ids."""
    return hashlib.sha256(canonical_json({key: content.get(key) for key in _DECIDES}).encode()).hexdigest()


class TokenCache:
    """Cached ids of one tokenizer, by shard.

    Entries are tables with a row per caption and its uid, by which `pairmill forget` finds the entries to delete: the
    ids of a forgotten caption can be decoded to the caption.
    """

    def __init__(self, cache: str, tokenizer: str) -> None:
        """`cache` is :attr:`StageContext.cache`; an empty string disables it. `tokenizer` is the tokenizer's digest."""
        self._cache = Cache(cache) if cache else None
        self._tokenizer = tokenizer

    def get(self, shard: str | None, uids: pa.Array) -> Encoded | None:
        """The ids of the shard with this sha256, or None if none are cached for exactly these samples."""
        if self._cache is None or shard is None:
            return None
        file = self._cache.get(self._key(shard), _SUFFIX)
        if file is None:
            return None
        try:
            table = pq.read_table(file).combine_chunks()
        except (OSError, pa.ArrowInvalid) as problem:
            log.warning("tokens: a cached result cannot be read and is encoded again: %s", problem)
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
        """Store the ids of a shard's captions."""
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
