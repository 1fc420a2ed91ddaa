"""The tokens stage: encodes every caption, shard by shard, so that training never runs a tokenizer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base.artifact import Artifact
from stages.base.contract import Inputs, Partition, Stage, StageContext, UserError
from stages.base.forgetting import ForgetInputs, Forgotten, Removal
from stages.tokens.config import TokensConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from stages.shard.reader import ShardReader
    from stages.tokenizer.load import LoadedTokenizer
    from stages.tokens.cache import TokenCache
    from stages.tokens.encode import Encoded

_LOSSES = ("round_trip_failed", "unknown")


class Tokens(Stage[TokensConfig]):
    """Inputs: `shards`, `tokenizer`. Ids are cached by shard and tokenizer: only changed shards are encoded."""

    name = "tokens"
    version = 2
    holds_samples = True
    sample_tables = ()
    reads_parts_singly = True
    forget_before = ("shard",)  # which names the caption that each run of ids belongs to

    def __init__(self, config: TokensConfig) -> None:
        super().__init__(config)
        # Kept for the next partition of the same process: index and list of the shards grow with the data set.
        self._opened: dict[tuple[str, ...], tuple[ShardReader, LoadedTokenizer, TokenCache]] = {}

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One per shard."""
        shards = inputs["shards"][0].read_json("dataset.json")["shards"]
        return [
            Partition(f"{i:05d}", {"shard": i, "name": s["name"], "sha256": s.get("sha256")})
            for i, s in enumerate(shards)
        ]

    def setup(self) -> None:
        """Open shards and tokenizer anew."""
        self._opened.clear()

    def run(self, partition: Partition, context: StageContext) -> None:
        """Encode one shard's captions, and decode each of them again.

        Raises UserError for a damaged shard, RuntimeError if a tokenizer trained here loses text.
        """
        tokenizer = context.input("tokenizer")
        shard, name = partition.spec["shard"], str(partition.spec["name"])
        reader, loaded, cache = self._open(context)
        samples = reader.of_shard(shard)
        rows = reader.index.table.slice(samples.start, len(samples))
        uids = rows["uid"].combine_chunks()
        encoded = cache.get(partition.spec["sha256"], uids)
        if encoded is None:
            encoded = _encoded(reader, shard, loaded)
            cache.put(partition.spec["sha256"], uids, encoded)
        figures = _figures(rows["source"], encoded, loaded.unknown_id)
        lost = {loss: sum(source[loss] for source in figures.values()) for loss in _LOSSES}
        if any(lost.values()) and not tokenizer.manifest.get("config", {}).get("brought", False):
            raise RuntimeError(f"the tokenizer trained here loses text of shard {name}: {lost}")
        encoded.write(context.out, name.removesuffix(".tar"))
        (context.intermediate / f"tokens-{partition.id}.json").write_text(json.dumps(figures), encoding="utf-8")
        context.count("samples", len(samples))
        context.count("tokens", len(encoded.ids))
        for loss, number in lost.items():
            context.count(loss, number)

    def _open(self, context: StageContext) -> tuple[ShardReader, LoadedTokenizer, TokenCache]:
        from stages.shard.reader import ShardReader
        from stages.tokenizer.load import load
        from stages.tokenizer.special import tokenizer_json
        from stages.tokens.cache import TokenCache, tokenizer_digest

        shards, tokenizer = context.input("shards"), context.input("tokenizer")
        key = (shards.fingerprint, tokenizer.fingerprint, context.cache)
        if key not in self._opened:
            folder = tokenizer.path()
            cache = TokenCache(context.cache, tokenizer_digest(tokenizer_json(folder)))
            self._opened = {key: (ShardReader(shards), load(folder), cache)}
        return self._opened[key]

    def finish(self, context: StageContext) -> None:
        """Write `tokens.json`."""
        from stages.tokenizer.load import load

        shards = [shard["name"] for shard in context.input("shards").read_json("dataset.json")["shards"]]
        sources: dict[str, Counter[str]] = {}
        for part in context.parts("tokens-*.json"):
            for source, figures in json.loads(part.read_text("utf-8")).items():
                sources.setdefault(source, Counter()).update(figures)
        content = {
            "vocabulary": load(context.input("tokenizer").path()).vocabulary,
            "tokenizer": context.input("tokenizer").fingerprint,
            "shards": [name.removesuffix(".tar") for name in shards],
            "tokens": sum(figures["tokens"] for figures in sources.values()),
            "sources": {source: dict(figures) for source, figures in sorted(sources.items())},
        }
        (context.out / "tokens.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        """See `stages/tokens/forget.py`."""
        from stages.tokens.forget import forget

        return forget(artifact, inputs, forgotten, out)


def _encoded(reader: ShardReader, shard: int, tokenizer: LoadedTokenizer) -> Encoded:
    from stages.shard.reader import DamagedShard
    from stages.tokens.encode import encode

    try:
        return encode(tokenizer, reader.captions(shard))
    except DamagedShard as damage:
        raise UserError(f"{damage}; run the shard stage again, or fetch the shards again") from None


def _figures(sources: pa.ChunkedArray, encoded: Encoded, unknown_id: int | None) -> dict[str, dict[str, int]]:
    """Per source: samples, tokens, and losses. Counts only, so private sources may be included."""
    import numpy as np

    names = sources.to_numpy(zero_copy_only=False).astype(str)
    distinct, codes = np.unique(names, return_inverse=True)
    values: dict[str, Any] = {
        "samples": np.ones(len(names)),
        "tokens": encoded.lengths,
        "round_trip_failed": encoded.changed,
        "unknown": encoded.unknown(unknown_id),
    }
    sums = {key: np.bincount(codes, weights=value, minlength=len(distinct)) for key, value in values.items()}
    return {str(name): {key: int(total[i]) for key, total in sums.items()} for i, name in enumerate(distinct)}
