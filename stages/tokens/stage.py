"""The tokens stage: every caption's ids, shard by shard, so that training never tokenises."""

from __future__ import annotations

import json
from collections.abc import Sequence

from stages.contract import Inputs, Partition, Stage, Task
from stages.tokens.config import TokensConfig


class Tokens(Stage[TokensConfig]):
    """Inputs: `shards`, `tokenizer`."""

    name = "tokens"

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """One per shard."""
        shards = inputs["shards"][0].read_json("dataset.json")["shards"]
        return [Partition(f"{i:05d}", {"shard": i, "name": s["name"]}) for i, s in enumerate(shards)]

    def run(self, partition: Partition, task: Task) -> None:
        """Encode one shard's captions."""
        from stages.shard.reader import ShardReader
        from stages.tokenizer.load import load
        from stages.tokens.encode import write_ids

        tokenizer = load(task.input("tokenizer").path())
        ids = tokenizer.encode_batch(list(ShardReader(task.input("shards")).captions(partition.spec["shard"])))
        write_ids(ids, tokenizer.vocabulary, task.out, str(partition.spec["name"]).removesuffix(".tar"))
        task.count("samples", len(ids))
        tokens = sum(map(len, ids))
        task.count("tokens", tokens)
        (task.parts / f"tokens-{partition.id}").write_text(str(tokens), encoding="utf-8")

    def finish(self, task: Task) -> None:
        """Write `tokens.json`."""
        from stages.tokenizer.load import load

        shards = [shard["name"] for shard in task.input("shards").read_json("dataset.json")["shards"]]
        content = {
            "vocabulary": load(task.input("tokenizer").path()).vocabulary,
            "tokenizer": task.input("tokenizer").fingerprint,
            "shards": [name.removesuffix(".tar") for name in shards],
            "tokens": sum(int(part.read_text("utf-8")) for part in task.parts.glob("tokens-*")),
        }
        (task.out / "tokens.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
